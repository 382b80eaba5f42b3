"""Output and gradient of a tree on their way from autograd to the walk, which overwrites what nobody else can see."""

from typing import Any

import torch
from torch import Tensor


class Box:
    """What a backward pass hands from the output's node to the tree's node: states, and gradients of all outputs."""

    def __init__(self) -> None:
        self._content: tuple[list[Tensor], list[Tensor | None]] | None = None

    def put(self, states: list[Tensor], grads: list[Tensor | None]) -> None:
        self._content = states, grads

    def take(self) -> tuple[list[Tensor], list[Tensor | None]]:
        assert self._content is not None, "the output's node runs before the tree's"
        content, self._content = self._content, None
        return content


class HandOver(torch.autograd.Function):
    """The identity, as the node behind a tree's node. It saves the states among the outputs, and fills the box.

    When the tree's node runs, autograd has freed what this node saved, unless it keeps the graph, and has dropped the
    gradients. In the box, states and gradients are tensors of their own: their memory has another holder exactly if
    someone can still see it, such as a caller who keeps the output, a hook that keeps a gradient, or a retained graph.
    """

    @staticmethod
    def forward(ctx: Any, box: Box, num_states: int, *outputs: Tensor) -> Any:
        outputs = tuple(part.detach() for part in outputs)  # no views, which could not be changed in place
        ctx.box = box
        ctx.save_for_backward(*outputs[:num_states])
        # None, not zeros, for an output that is not in the loss: so parameters without influence get no gradient.
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        refuse_what_cannot_be_repeated(grads)
        states = [part.detach() for part in ctx.saved_tensors]
        ctx.box.put(states, [None if grad is None else grad.detach() for grad in grads])
        return (None, None, *[None] * len(grads))


def refuse_what_cannot_be_repeated(grads: tuple[Tensor | None, ...]) -> None:
    """Refuse gradients of gradients, and several at a time.

    Raises:
        RuntimeError: in plain words.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "double backward (create_graph=True) does not work with backprop='reversible', because the graph is "
            "rebuilt and freed piece by piece; use set_backprop(net, 'stored')"
        )
    if any(grad is not None and _is_batched(grad) for grad in grads):
        raise RuntimeError(
            "expected one gradient at a time with backprop='reversible', got a batch of them (is_grads_batched=True, "
            "vmap, or a vectorised Jacobian): use set_backprop(net, 'stored')"
        )


def refuse_transforms(policy: str) -> None:
    """Refuse to run inside a transform of `torch.func`, which asks more of an `autograd.Function` than ours can do.

    Raises:
        RuntimeError: in plain words.
    """
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    if active is not None and active():
        raise RuntimeError(
            f"expected no transform of torch.func (grad, vjp, jvp, vmap, ...) with backprop={policy!r}: use "
            "set_backprop(net, 'stored')"
        )


def _is_batched(tensor: Tensor) -> bool:
    functorch = getattr(torch._C, "_functorch", None)  # torch has no public way to ask
    checks = (getattr(functorch, name, None) for name in ("is_batchedtensor", "is_legacy_batchedtensor"))
    return any(check is not None and check(tensor) for check in checks)
