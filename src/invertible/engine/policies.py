"""What is stored for the backward pass of an invertible network, chosen from outside with `set_backprop`.

- ``stored``: plain autograd; every activation is stored.
- ``reversible``: the output of the whole tree only; see `reversible.py`.
- ``checkpoint``: the input of every leaf of the tree, through `torch.utils.checkpoint`.
- ``memcnn``: `memcnn.InvertibleModuleWrapper` around every leaf.

Parameters, their names, the loss and the gradients are the same under each. A tensor with a graph that a module reads
as an attribute, as hypernetworks set it, gets its gradient under ``stored`` and ``checkpoint``; the others refuse it.

`torch.export` and `torch.onnx.export` always record plain operations, since an exported program does not use our
backward pass.
"""

from contextlib import ExitStack, nullcontext
from typing import Any, Literal

import torch
import torch.utils.checkpoint
from torch import nn

from ..arguments import chosen
from ..composites import Composite
from ..module import Call, Condition, Inverse, InvertibleModule, Policy, State, all_modules, past_policies, tensors_of
from .handover import refuse_transforms
from .replay import LeafStart, replayed
from .reversible import reversible, run_with_logdet
from .snapshot import Snapshot


def _per_leaf(wrapped: Policy, root: InvertibleModule, call: Call, x: State, condition: Condition) -> Any:
    """Evaluate a root with ``wrapped(leaf, call, x, condition)`` in the place of each leaf."""

    def leaf_call(leaf: InvertibleModule, part_call: Call, state: State) -> Any:
        return wrapped(leaf, part_call, state, condition if leaf.takes_condition else None)

    with past_policies():
        y, logdet = run_with_logdet(call.tree(root), x, call.logdet, leaf_call)
    return (y, logdet) if call.logdet else y


def _checkpoint(root: InvertibleModule, call: Call, x: State, condition: Condition) -> Any:
    return _per_leaf(_checkpointed, root, call, x, condition)


def _memcnn(root: InvertibleModule, call: Call, x: State, condition: Condition) -> Any:
    from .memcnn_policy import MemcnnCall, together  # memcnn imports torchvision: only where it is asked for

    refuse_transforms("memcnn")
    result = _per_leaf(MemcnnCall(), root, call, x, condition)
    return (together(result[0]), result[1]) if call.logdet else together(result)


class _Recomputation:
    """The context in which `torch.utils.checkpoint` evaluates a leaf again: as it was in the forward pass.

    A class, since torch enters it again when a retained graph is used twice, and a generator can be entered once.
    """

    def __init__(self, leaf: InvertibleModule, device: torch.device) -> None:
        self._leaf = leaf
        self._start: LeafStart | None = LeafStart(all_modules(leaf), device)
        self._snapshot: Snapshot | None = None

    def settle(self) -> None:
        """Called when the leaf has been evaluated. One that differentiates itself is recomputed before that."""
        if self._start is not None:
            self._start = self._start.settle()
        self._snapshot = Snapshot(self._leaf)

    def __enter__(self) -> None:
        with ExitStack() as stack:
            if self._snapshot is not None:
                self._snapshot.refuse_overwritten()
                self._snapshot.refuse_changes()
                stack.enter_context(self._snapshot.reused())
            stack.enter_context(replayed(self._start))
            self._stack = stack.pop_all()

    def __exit__(self, *error: Any) -> None:
        self._stack.close()


def _checkpointed(leaf: InvertibleModule, call: Call, x: State, condition: Condition) -> Any:
    def run(state: State, condition: Condition) -> Any:
        with past_policies():
            return call(leaf, state, condition)

    again = _Recomputation(leaf, tensors_of(x)[0].device)
    y = torch.utils.checkpoint.checkpoint(
        run,
        x,
        condition,
        use_reentrant=False,
        preserve_rng_state=False,  # the recomputation does it
        context_fn=lambda: (nullcontext(), again),
    )
    again.settle()
    return y


# Spelled out, so that a configuration can be judged from the source alone.
PolicyName = Literal["reversible", "stored", "checkpoint", "memcnn"]
"""The type of the names of backprop policies.

Example:
    >>> policy: PolicyName = "reversible"
"""
POLICIES = {"reversible": reversible, "stored": None, "checkpoint": _checkpoint, "memcnn": _memcnn}
"""The memory policies by name, for `set_backprop`.

Example:
    >>> list(POLICIES)
    ['reversible', 'stored', 'checkpoint', 'memcnn']
"""


def invertible_roots(net: nn.Module) -> dict[str, InvertibleModule]:
    """The largest invertible parts of a network, by name.

    A tree that contains a padding network is not among them, but its parts are.

    Args:
        net: any network, or a tree, which is then its own root with the name "".

    Example:
        >>> list(invertible_roots(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1), ActNorm(4))))
        ['1']
    """
    roots: dict[str, InvertibleModule] = {}

    def search(module: nn.Module, name: str) -> None:
        if isinstance(module, InvertibleModule) and not _pads_inside(module):
            roots[name] = module
            return
        for child_name, child in module.named_children():
            search(child, f"{name}.{child_name}".lstrip("."))

    search(net, "")
    return roots


def _pads_inside(module: nn.Module) -> bool:
    """Whether a part of a tree pads its input, so that the tree cannot be walked back from its output."""
    parts = module.children() if isinstance(module, Composite | Inverse) else ()
    return any(getattr(part, "pads_input", False) or _pads_inside(part) for part in parts)


def set_backprop(net: nn.Module, policy: str) -> None:
    """Set how the invertible parts of ``net`` are backpropagated through; other parts stay as they are.

    Args:
        net: any network; its `invertible_roots` get the policy.
        policy: ``reversible``, ``stored``, ``checkpoint`` or ``memcnn``, as in `POLICIES`.

    Raises:
        ValueError: for an unknown policy.

    Example:
        >>> net = Sequential(*(AdditiveCoupling(4, lambda i, o: torch.nn.Conv2d(i, o, 1)) for _ in range(8)))
        >>> set_backprop(net, "reversible")  # saves the output alone, for any depth; the gradients stay the same
        >>> net(torch.randn(2, 4, 8, 8)).square().mean().backward()
    """
    chosen_policy = chosen("backprop", policy, POLICIES)
    for module in net.modules():
        if isinstance(module, InvertibleModule):
            module.backprop_policy = None
    for root in invertible_roots(net).values():
        root.bijection.backprop_policy = chosen_policy
