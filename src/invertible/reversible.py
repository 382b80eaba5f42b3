"""Backpropagation from the output of an invertible tree alone (Gomez et al., 2017).

One autograd node stands for the whole tree. It saves the output, walks the tree backwards from there, and rebuilds each
part's input while it computes the gradients. How a leaf is differentiated is a rule: the default inverts it without
gradients, runs it forward once with them, and calls `torch.autograd.grad`. A layer that can do better registers its
own with `backward_rule`; see `rules.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from .kept import keeps_input
from .module import (
    Composite,
    Condition,
    Inverse,
    InvertibleModule,
    Position,
    State,
    evaluate,
    map_tensors,
    past_policies,
    tensors_of,
    trained_parameters,
    zero_logdet,
)
from .replay import AutocastState, FrozenStatistics, Replay, RngState

Rule = Callable[["LeafBackward", Any, State, State], tuple[State, State]]
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


def default_rule(leaf: LeafBackward, layer: InvertibleModule, y: State, grad: State) -> tuple[State, State]:
    """Invert without gradients, run forward once with them."""
    with leaf.replay(), torch.no_grad():
        x = evaluate(layer, "inverse", y, leaf.condition)
    return forward_again(leaf, layer, x, grad)


def forward_again(leaf: LeafBackward, layer: InvertibleModule, x: State, grad: State) -> tuple[State, State]:
    """Run forward once with gradients, from a known input."""
    x = map_tensors(lambda part: part.detach().requires_grad_(), x)
    with leaf.replay(), torch.enable_grad():
        if leaf.grad_logdet is None:
            outputs, grads = evaluate(layer, "forward", x, leaf.condition), grad
        else:
            z, logdet = evaluate(layer, "forward_and_logdet", x, leaf.condition)
            outputs, grads = (*tensors_of(z), logdet), (*tensors_of(grad), leaf.grad_logdet)
    return map_tensors(Tensor.detach, x), leaf.differentiate(outputs, x, grads)


class BackwardWalk:
    """One walk from the output of a tree to its input, collecting gradients of parameters and conditions on the way."""

    def __init__(
        self,
        rng_states: list[RngState | None],
        kept_inputs: list[State | None],
        grad_logdet: Tensor | None,
        condition: Condition,
    ) -> None:
        self.grad_logdet = grad_logdet
        self.condition = condition
        self.gradients: dict[Tensor, Tensor] = {}
        self._rng_states = list(rng_states)
        self._kept_inputs = list(kept_inputs)

    def __call__(self, part: InvertibleModule, position: Position) -> None:
        part = expand(part)
        if isinstance(part, Composite):
            part.run_back(position, self)
            return
        leaf, kept = LeafBackward(self, part, self._rng_states.pop()), self._kept_inputs.pop()
        if kept is None:
            position.state, position.grad = find_rule(part)(leaf, part, position.state, position.grad)
        else:
            # A clone, since the rules of the leaves before it overwrite what they get.
            x = map_tensors(Tensor.clone, kept)
            position.state, position.grad = forward_again(leaf, part, x, position.grad)

    def add(self, tensor: Tensor, grad: Tensor) -> None:
        """Add to the gradient of a parameter or condition, which may belong to several leaves."""
        known = self.gradients.get(tensor)
        self.gradients[tensor] = grad if known is None else known + grad


class LeafBackward:
    """What a rule may use: condition, gradient of the log-determinant, repeatable evaluation, differentiation."""

    def __init__(self, walk: BackwardWalk, layer: InvertibleModule, state: RngState | None) -> None:
        self.grad_logdet = walk.grad_logdet
        self.condition = walk.condition if layer.takes_condition else None
        conditions = (tensor for tensor in tensors_of(self.condition) if tensor.requires_grad)
        self._tracked = [*trained_parameters(layer), *conditions]
        self._walk = walk
        self._rng_state = state

    def replay(self) -> Replay:
        """A context in which random draws (dropout) repeat those of the forward pass."""
        return Replay(self._rng_state)

    def differentiate(self, outputs: State, x: State, grad_outputs: State) -> State:
        """Gradient for ``x``, in the form of ``x``; those for the leaf's parameters and condition go to the walk."""
        inputs = tensors_of(x)
        pairs = zip(tensors_of(outputs), tensors_of(grad_outputs), strict=True)
        tracked = [(output, grad.to(output.dtype)) for output, grad in pairs if output.requires_grad]
        grads: list[Tensor | None] = [None] * len(inputs)
        if tracked:
            found = torch.autograd.grad(
                [o for o, _ in tracked], [*inputs, *self._tracked], [g for _, g in tracked], allow_unused=True
            )
            grads = list(found[: len(inputs)])
            self._collect(found[len(inputs) :])
        filled = tuple(torch.zeros_like(i) if g is None else g for i, g in zip(inputs, grads, strict=True))
        return filled if isinstance(x, tuple) else filled[0]

    def differentiate_parameters(self, output: Tensor, grad_output: Tensor) -> None:
        """Hand the gradients for the leaf's parameters, through ``output``, to the walk."""
        if output.requires_grad:
            grad_output = grad_output.to(output.dtype)
            self._collect(torch.autograd.grad(output, self._tracked, grad_output, allow_unused=True))

    def _collect(self, grads: Iterable[Tensor | None]) -> None:
        for tensor, grad in zip(self._tracked, grads, strict=True):
            if grad is not None:
                self._walk.add(tensor, grad)


def expand(part: InvertibleModule) -> InvertibleModule:
    """The same map with its structure in sight: inside a padding network, and with an inverse pushed to the leaves."""
    part = part.bijection
    if isinstance(part, Inverse):
        inner = part.module.bijection
        if isinstance(inner, Composite | Inverse):
            return expand(inner.inverted())
    return part


def run_leaves(part: InvertibleModule, x: State, leaf_step: Callable[[InvertibleModule, State], State]) -> State:
    """Evaluate a tree, with ``leaf_step(leaf, x)`` in the place of each leaf."""
    part = expand(part)
    if isinstance(part, Composite):
        return part.run(x, lambda child, state: run_leaves(child, state, leaf_step))
    return leaf_step(part, x)


def run_with_logdet(
    tree: InvertibleModule, x: State, with_logdet: bool, call: Callable[[InvertibleModule, str, State], Any]
) -> tuple[State, Tensor]:
    """Output and log-determinant of a tree, zero if not asked for, with ``call(leaf, method, x)`` for each leaf."""
    total = zero_logdet(x)

    def leaf_step(leaf: InvertibleModule, state: State) -> State:
        nonlocal total
        if not with_logdet:
            return call(leaf, "forward", state)
        state, logdet = call(leaf, "forward_and_logdet", state)
        total = total + logdet
        return state

    return run_leaves(tree, x, leaf_step), total


class _Reversible(torch.autograd.Function):
    """A whole invertible tree as one node of the autograd graph; of the states it saves the output only."""

    @staticmethod
    def forward(ctx: Any, tree: InvertibleModule, with_logdet: bool, call: _Call, *tensors: Tensor) -> Any:
        x, condition, parameters = call.unpack(tensors)
        device = tensors_of(x)[0].device
        ctx.rng_states = []
        kept: list[State | None] = []

        def recorded(leaf: InvertibleModule, method: str, state: State) -> Any:
            kept.append(map_tensors(_compact, state) if keeps_input(leaf) else None)
            before = RngState(device)
            result = evaluate(leaf, method, state, condition)
            ctx.rng_states.append(before if RngState(device) != before else None)
            return result

        ctx.autocast = AutocastState(device.type)
        with past_policies(), ctx.autocast():
            y, logdet = run_with_logdet(tree, x, with_logdet, recorded)
        # An output that shares the caller's memory would change when the caller changes it.
        inputs = {part.untyped_storage().data_ptr() for part in tensors_of(x)}
        y = map_tensors(lambda part: part.clone() if part.untyped_storage().data_ptr() in inputs else part, y)
        ctx.tree, ctx.with_logdet, ctx.call, ctx.parameters = tree, with_logdet, call, parameters
        call.y_is_tuple = isinstance(y, tuple)
        ctx.versions = [p._version for p in parameters]
        ctx.training = tree.training
        kept_tensors, ctx.kept_form = tree_flatten(kept)
        ctx.save_for_backward(*tensors_of(y), *tensors_of(condition), *kept_tensors)
        return (*tensors_of(y), logdet) if with_logdet else y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        _refuse_what_cannot_be_repeated(ctx)
        call, saved, num_outputs = ctx.call, ctx.saved_tensors, len(grads) - ctx.with_logdet
        end = num_outputs + call.num_conditions
        condition = call.leaf_condition(saved[num_outputs:end])
        kept_inputs = tree_unflatten(saved[end:], ctx.kept_form)
        walk = BackwardWalk(ctx.rng_states, kept_inputs, grads[-1] if ctx.with_logdet else None, condition)
        with past_policies(), ctx.autocast(), FrozenStatistics(ctx.tree), torch.no_grad():
            # Clones, since rules overwrite what they get: the output is the caller's, the gradient autograd's.
            y = tuple(part.clone() for part in saved[:num_outputs])
            # Laid out in memory as y.
            grad = tuple(torch.empty_like(a).copy_(b) for a, b in zip(y, grads, strict=False))
            position = Position(y, grad) if call.y_is_tuple else Position(y[0], grad[0])
            del y, grad
            walk(ctx.tree, position)
        tracked = (*tensors_of(condition), *ctx.parameters)
        return (None, None, None, *tensors_of(position.grad), *(walk.gradients.get(tensor) for tensor in tracked))


def _compact(part: Tensor) -> Tensor:
    """The tensor itself, or a copy if it is a view that would keep more memory than its own."""
    return part if part.untyped_storage().nbytes() == part.numel() * part.element_size() else part.clone()


class _Call:
    """How a call's states, conditions and parameters lie in the flat list of tensors that autograd sees."""

    def __init__(self, x: State, condition: Condition) -> None:
        self._x_is_tuple = isinstance(x, tuple)
        self._num_inputs = len(tensors_of(x))
        self._condition_is_tuple = isinstance(condition, tuple)
        self.num_conditions = len(tensors_of(condition))
        self.y_is_tuple = False  # known once the tree has run
        self._condition_tracked = [part.requires_grad for part in tensors_of(condition)]

    def unpack(self, tensors: tuple[Tensor, ...]) -> tuple[State, Condition, tuple[Tensor, ...]]:
        end = self._num_inputs + self.num_conditions
        x, condition, parameters = tensors[: self._num_inputs], tensors[self._num_inputs : end], tensors[end:]
        return x if self._x_is_tuple else x[0], self._condition(condition), parameters

    def leaf_condition(self, saved: tuple[Tensor, ...]) -> Condition:
        """The condition as leaves of the graphs that backward builds, tracked where the caller tracks it."""
        pairs = zip(saved, self._condition_tracked, strict=True)
        return self._condition(tuple(part.detach().requires_grad_(tracked) for part, tracked in pairs))

    def _condition(self, parts: tuple[Tensor, ...]) -> Condition:
        if not parts:
            return None
        return parts if self._condition_is_tuple else parts[0]


def _refuse_what_cannot_be_repeated(ctx: Any) -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "double backward (create_graph=True) does not work with backprop='reversible', whose graph is rebuilt "
            "and freed part by part: use set_backprop(net, 'stored')"
        )
    if [p._version for p in ctx.parameters] != ctx.versions:
        raise RuntimeError(
            "a parameter was changed in place between forward and backward: the input cannot be rebuilt with "
            "backprop='reversible'"
        )
    if ctx.tree.training != ctx.training:
        raise RuntimeError("the network was switched between train() and eval() between forward and backward")


def reversible(tree: InvertibleModule, with_logdet: bool, x: State, condition: Condition) -> Any:
    """``tree(x)``, or output and log-determinant, as one node of the graph."""
    tensors = (*tensors_of(x), *tensors_of(condition), *trained_parameters(tree))
    call = _Call(x, condition)
    result = _Reversible.apply(tree, with_logdet, call, *tensors)
    if not with_logdet:
        return result
    *y, logdet = result
    return (tuple(y) if call.y_is_tuple else y[0]), logdet
