"""Memory-efficient backpropagation through trees of invertible modules.

`set_backprop(net, policy)` chooses, from outside the network, what is stored for the backward pass:

- ``stored``: plain autograd; every activation is stored.
- ``reversible``: the output of the whole tree only. Backward walks the tree from its output, rebuilding each part's
  input while it computes the gradients (Gomez et al., 2017).
- ``checkpoint``: the input of every leaf of the tree, through `torch.utils.checkpoint`.
- ``memcnn``: `memcnn.InvertibleModuleWrapper` around every leaf.

Parameters, their names, the loss and the gradients are the same under each.

How a leaf is differentiated under ``reversible`` is a rule. The default inverts it without gradients, runs it forward
once with them, and calls `torch.autograd.grad`. A layer that can do better registers its own with `backward_rule`;
see `rules.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from .module import Composite, Inverse, InvertibleModule, past_policies
from .replay import AutocastState, FrozenStatistics, Replay, RngState

Rule = Callable[["LeafBackward", Any, Tensor, Tensor], tuple[Tensor, Tensor]]
RuleKey = type | tuple[type, type]
_rules: dict[RuleKey, Rule] = {}


def backward_rule(layer: type, *, inverse: bool = False) -> Callable[[Rule], Rule]:
    """Register how a layer class, or with ``inverse=True`` its `Inverse`, goes back from output to input.

    The rule gets ``(leaf, layer, y, grad)`` and returns ``(x, grad_x)``; it may overwrite ``y`` and ``grad``.
    """

    def register(rule: Rule) -> Rule:
        _rules[(Inverse, layer) if inverse else layer] = rule
        return rule

    return register


def find_rule(layer: InvertibleModule) -> Rule:
    """The rule of the nearest registered class, the default rule otherwise."""
    if isinstance(layer, Inverse):
        keys: list[RuleKey] = [(Inverse, cls) for cls in type(layer.module).__mro__]
    else:
        keys = list(type(layer).__mro__)
    return next((_rules[key] for key in keys if key in _rules), default_rule)


def default_rule(leaf: LeafBackward, layer: InvertibleModule, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Invert without gradients, run forward once with them."""
    with leaf.replay(), torch.no_grad():
        x = layer.inverse(y)
    x = x.detach().requires_grad_()
    outputs: tuple[Tensor, ...]
    with leaf.replay(), torch.enable_grad():
        outputs = (layer(x),) if leaf.grad_logdet is None else layer.forward_and_logdet(x)
    grad_outputs = (grad,) if leaf.grad_logdet is None else (grad, leaf.grad_logdet)
    return x.detach(), leaf.differentiate(outputs, x, grad_outputs)


class BackwardWalk:
    """One walk from the output of a tree to its input, collecting the parameters' gradients on the way."""

    def __init__(self, rng_states: list[RngState | None], grad_logdet: Tensor | None) -> None:
        self.grad_logdet = grad_logdet
        self.gradients: dict[Tensor, Tensor] = {}
        self._rng_states = list(rng_states)

    def __call__(self, part: InvertibleModule, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        part = expand(part)
        if isinstance(part, Composite):
            return part.run_back(y, grad, self)
        leaf = LeafBackward(self, [p for p in part.parameters() if p.requires_grad], self._rng_states.pop())
        return find_rule(part)(leaf, part, y, grad)

    def add(self, parameter: Tensor, grad: Tensor) -> None:
        """Add to the gradient of a parameter, which may belong to several leaves."""
        known = self.gradients.get(parameter)
        self.gradients[parameter] = grad if known is None else known + grad


class LeafBackward:
    """What a rule may use: the gradient of the log-determinant, repeatable evaluation, and differentiation."""

    def __init__(self, walk: BackwardWalk, parameters: list[Tensor], state: RngState | None) -> None:
        self.grad_logdet = walk.grad_logdet
        self._walk = walk
        self._parameters = parameters
        self._rng_state = state

    @contextmanager
    def replay(self) -> Iterator[None]:
        """Inside, random draws (dropout) repeat those of the forward pass."""
        with Replay(self._rng_state):
            yield

    def differentiate(self, outputs: tuple[Tensor, ...], x: Tensor, grad_outputs: tuple[Tensor, ...]) -> Tensor:
        """Gradient for ``x``; those for the leaf's parameters go to the walk."""
        tracked = [(o, g.to(o.dtype)) for o, g in zip(outputs, grad_outputs, strict=True) if o.requires_grad]
        if not tracked:
            return torch.zeros_like(x)
        grad_x, *grads = torch.autograd.grad(
            [o for o, _ in tracked], [x, *self._parameters], [g for _, g in tracked], allow_unused=True
        )
        self._collect(grads)
        return torch.zeros_like(x) if grad_x is None else grad_x

    def differentiate_parameters(self, output: Tensor, grad_output: Tensor) -> None:
        """Hand the gradients for the leaf's parameters, through ``output``, to the walk."""
        if output.requires_grad:
            grad_output = grad_output.to(output.dtype)
            self._collect(torch.autograd.grad(output, self._parameters, grad_output, allow_unused=True))

    def _collect(self, grads: Iterable[Tensor | None]) -> None:
        for parameter, grad in zip(self._parameters, grads, strict=True):
            if grad is not None:
                self._walk.add(parameter, grad)


def expand(part: InvertibleModule) -> InvertibleModule:
    """The same map with its structure in sight: inside a padding network, and with an inverse pushed to the leaves."""
    part = part.bijection
    if isinstance(part, Inverse):
        inner = part.module.bijection
        if isinstance(inner, Composite | Inverse):
            return expand(inner.inverted())
    return part


def run_leaves(part: InvertibleModule, x: Tensor, leaf_step: Callable[[InvertibleModule, Tensor], Tensor]) -> Tensor:
    """Evaluate a tree, with ``leaf_step(leaf, x)`` in the place of each leaf."""
    part = expand(part)
    if isinstance(part, Composite):
        return part.run(x, lambda child, state: run_leaves(child, state, leaf_step))
    return leaf_step(part, x)


def _run_recorded(tree: InvertibleModule, x: Tensor, with_logdet: bool) -> tuple[Tensor, Tensor, list]:
    """Output, log-determinant, and for each leaf the random state it started from, if it drew random numbers."""
    states: list[RngState | None] = []
    total = x.new_zeros(x.shape[0])

    def leaf_step(leaf: InvertibleModule, state: Tensor) -> Tensor:
        nonlocal total
        before = RngState(state.device)
        if with_logdet:
            state, logdet = leaf.forward_and_logdet(state)
            total = total + logdet
        else:
            state = leaf(state)
        states.append(before if RngState(state.device) != before else None)
        return state

    return run_leaves(tree, x, leaf_step), total, states


class _Reversible(torch.autograd.Function):
    """A whole invertible tree as one node of the autograd graph; it saves its output only."""

    @staticmethod
    def forward(ctx: Any, tree: InvertibleModule, with_logdet: bool, x: Tensor, *parameters: Tensor) -> Any:
        ctx.tree, ctx.with_logdet, ctx.parameters = tree, with_logdet, parameters
        ctx.autocast = AutocastState(x.device.type)
        with past_policies(), ctx.autocast():
            y, logdet, ctx.rng_states = _run_recorded(tree, x, with_logdet)
        if y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
            y = y.clone()  # an output that shares the caller's memory would change when the caller changes it
        ctx.versions = [p._version for p in parameters]
        ctx.training = tree.training
        ctx.save_for_backward(y)
        return (y, logdet) if with_logdet else y

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *grad_logdet: Tensor) -> Any:
        _refuse_what_cannot_be_repeated(ctx)
        (y,) = ctx.saved_tensors
        walk = BackwardWalk(ctx.rng_states, grad_logdet[0] if ctx.with_logdet else None)
        with past_policies(), ctx.autocast(), FrozenStatistics(ctx.tree), torch.no_grad():
            # Clones, since rules overwrite what they get: the output is the caller's, the gradient autograd's.
            _, grad_x = walk(ctx.tree, y.clone(), grad.clone())
        return (None, None, grad_x, *(walk.gradients.get(p) for p in ctx.parameters))


def _refuse_what_cannot_be_repeated(ctx: FunctionCtx) -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "double backward (create_graph=True) does not work with backprop='reversible', whose graph is rebuilt "
            "and freed part by part: use set_backprop(net, 'stored')"
        )
    if [p._version for p in ctx.parameters] != ctx.versions:  # type: ignore[attr-defined]
        raise RuntimeError(
            "a parameter was changed in place between forward and backward: the input cannot be rebuilt with "
            "backprop='reversible'"
        )
    if ctx.tree.training != ctx.training:  # type: ignore[attr-defined]
        raise RuntimeError("the network was switched between train() and eval() between forward and backward")


def _tree_of(root: InvertibleModule, method: str) -> InvertibleModule:
    return root.inverted() if method == "inverse" else root


def _reversible(root: InvertibleModule, method: str, x: Tensor) -> Any:
    tree = _tree_of(root, method)
    parameters = [p for p in tree.parameters() if p.requires_grad]
    return _Reversible.apply(tree, method == "forward_and_logdet", x, *parameters)


class _PerLeaf:
    """A policy that treats each leaf of a tree by itself: ``wrap(leaf, method, x)``."""

    def __init__(self, wrap: Callable[[InvertibleModule, str, Tensor], Any]) -> None:
        self._wrap = wrap

    def __call__(self, root: InvertibleModule, method: str, x: Tensor) -> Any:
        with_logdet = method == "forward_and_logdet"
        total = x.new_zeros(x.shape[0])

        def leaf_step(leaf: InvertibleModule, state: Tensor) -> Tensor:
            nonlocal total
            if not with_logdet:
                return self._wrap(leaf, "forward", state)
            state, logdet = self._wrap(leaf, "forward_and_logdet", state)
            total = total + logdet
            return state

        with past_policies():
            y = run_leaves(_tree_of(root, method), x, leaf_step)
        return (y, total) if with_logdet else y


def _checkpointed(leaf: InvertibleModule, method: str, x: Tensor) -> Any:
    def evaluate(state: Tensor) -> Any:
        with past_policies():
            return getattr(leaf, method)(state)

    return torch.utils.checkpoint.checkpoint(
        evaluate, x, use_reentrant=False, context_fn=lambda: (nullcontext(), FrozenStatistics(leaf))
    )


def _memcnn(leaf: InvertibleModule, method: str, x: Tensor) -> Any:
    from .memcnn_policy import wrapped_by_memcnn  # memcnn imports torchvision: only where it is asked for

    return wrapped_by_memcnn(leaf, method, x)


POLICIES = {
    "reversible": _reversible,
    "stored": None,
    "checkpoint": _PerLeaf(_checkpointed),
    "memcnn": _PerLeaf(_memcnn),
}


def invertible_roots(net: nn.Module) -> dict[str, InvertibleModule]:
    """The largest invertible parts of a network, by name."""
    roots: dict[str, InvertibleModule] = {}

    def search(module: nn.Module, name: str) -> None:
        if isinstance(module, InvertibleModule):
            roots[name] = module
            return
        for child_name, child in module.named_children():
            search(child, f"{name}.{child_name}".lstrip("."))

    search(net, "")
    return roots


def set_backprop(net: nn.Module, policy: str) -> None:
    """Set how the invertible parts of ``net`` are backpropagated through; other parts stay as they are.

    Raises:
        ValueError: for an unknown policy.
    """
    if policy not in POLICIES:
        raise ValueError(f"expected backprop to be one of {', '.join(POLICIES)}, got {policy!r}")
    for module in net.modules():
        if isinstance(module, InvertibleModule):
            module.backprop_policy = None
    for root in invertible_roots(net).values():
        root.bijection.backprop_policy = POLICIES[policy]
