"""The walk from the output of an invertible tree back to its input, leaf by leaf, with a gradient.

How a leaf is differentiated is a rule. The default inverts the leaf without gradients, runs it forward once with them,
and calls `torch.autograd.grad`. A layer that can do better registers its own rule beside its class, by `backward_rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..composites import Composite
from ..module import (
    FORWARD,
    FORWARD_AND_LOGDET,
    INVERSE,
    Condition,
    Inverse,
    InvertibleModule,
    Position,
    State,
    all_modules,
    as_tuple,
    map_tensors,
    tensors_of,
)
from .ownership import apart, compact, has_hooks, repeats_numbers, share_memory
from .recorded import Recorded, differentiated
from .replay import LeafStart, laid_out, replayed
from .shared_values import SharedValue, values_at_once
from .snapshot import Snapshot

Rule = Callable[["LeafBackward", Any, State, State], tuple[State, State]]
Key = TypeVar("Key")
_rules: dict[tuple[type, bool], Rule] = {}


def backward_rule(layer: type, *, inverse: bool = False) -> Callable[[Rule], Rule]:
    """Register how a layer class, or with ``inverse=True`` the `Inverse` of one, goes back from output to input.

    The rule gets ``(leaf, layer, y, grad)`` and returns ``(x, grad_x)``; it may overwrite ``y`` and ``grad``. In both
    cases ``layer`` is an instance of the class. ``leaf.grad_logdet`` is the loss's gradient (B,) for the
    log-determinant, or None, and ``leaf.condition`` the condition. A layer with parameters or a condition calls
    ``leaf.differentiate(outputs, x, grad_outputs)``: it returns the gradient for ``x`` and hands on those for
    parameters and condition; with ``x=()``, those alone.

    Args:
        layer: the class; its subclasses inherit the rule.
        inverse: whether the rule is that of the layer's `Inverse`.

    Example:
        >>> class Negative(VolumePreserving):
        ...     def forward(self, x):
        ...         return -x
        ...     inverse = forward
        >>> @backward_rule(Negative)
        ... def negative(leaf, layer, y, grad):
        ...     return -y, -grad
    """

    def register(rule: Rule) -> Rule:
        _rules[layer, inverse] = rule
        return rule

    return register


def go_back(leaf: LeafBackward, part: InvertibleModule, y: State, grad: State) -> tuple[State, State]:
    """Go back through a part by the rule of the nearest registered class, otherwise by the default rule."""
    inverse = isinstance(part, Inverse)
    layer = part.module if isinstance(part, Inverse) else part
    rule = next((_rules[cls, inverse] for cls in type(layer).__mro__ if (cls, inverse) in _rules), None)
    return rule(leaf, layer, y, grad) if rule else default_rule(leaf, part, y, grad)


def default_rule(leaf: LeafBackward, layer: InvertibleModule, y: State, grad: State) -> tuple[State, State]:
    """Invert without gradients, run forward once with them."""
    with leaf.replay(), torch.no_grad():
        x = INVERSE(layer, y, leaf.condition)
    return forward_again(leaf, layer, x, grad)


def forward_again(leaf: LeafBackward, layer: InvertibleModule, x: State, grad: State) -> tuple[State, State]:
    """Run forward once with gradients, from a known input.

    Of ``grad``, and so of the gradient for x, parts may be None: the loss does not depend on these.
    """
    if leaf.grad_logdet is None and all(part is None for part in as_tuple(grad)):
        return x, (None,) * len(x) if isinstance(x, tuple) else None
    x = map_tensors(lambda part: part.detach().requires_grad_(), leaf.laid_out(x))
    with leaf.replay(), torch.enable_grad():
        if leaf.grad_logdet is None:
            outputs, grads = FORWARD(layer, x, leaf.condition), grad
        else:
            z, logdet = FORWARD_AND_LOGDET(layer, x, leaf.condition)
            outputs, grads = (*tensors_of(z), logdet), (*as_tuple(grad), leaf.grad_logdet)
    differentiate = leaf.differentiate if has_whole(grad) else leaf.differentiate_sparsely
    grad_x = differentiate(outputs, x, grads, keeps=False)
    return map_tensors(Tensor.detach, x), grad_x


def has_whole(grad: State) -> bool:
    """Whether the loss depends on every tensor of a state."""
    return all(part is not None for part in as_tuple(grad))


class BackwardWalk:
    """One walk from the output of a tree to its input, collecting gradients of parameters and conditions on the way.

    Args:
        starts: of the leaves, in the order of the forward pass.
        kept_inputs: inputs of the leaves that keep theirs, None for the others.
        grad_logdet: gradient of the log-determinant, None if it is not in the loss.
        snapshot: of the tree; `gradients` belong to its originals.
    """

    def __init__(
        self,
        starts: list[LeafStart | None],
        kept_inputs: list[State | None],
        grad_logdet: Tensor | None,
        condition: Condition,
        snapshot: Snapshot,
    ) -> None:
        self.grad_logdet = grad_logdet
        self.condition = condition
        self.gradients: dict[Tensor, Tensor] = {}
        self.snapshot = snapshot
        self.value_grads: dict[SharedValue, Tensor] = {}
        self._starts = list(starts)
        self._kept_inputs = list(kept_inputs)

    def __call__(self, part: InvertibleModule, position: Position) -> None:
        part = expand(part)
        if isinstance(part, Composite):
            part.run_back(position, self)
            return
        modules = all_modules(part)
        is_watched = has_hooks(modules)
        if is_watched:
            position.state = map_tensors(compact, position.state)
        leaf, kept = LeafBackward(self, part, modules, self._starts.pop()), self._kept_inputs.pop()
        if kept is None:
            position.state = leaf.laid_out(position.state)
            rule = go_back if has_whole(position.grad) else default_rule
            position.state, position.grad = rule(leaf, part, position.state, position.grad)
        else:
            # A clone, since the rules of the leaves before it overwrite what they get.
            x = map_tensors(Tensor.clone, kept)
            position.state, position.grad = forward_again(leaf, part, x, position.grad)
        if is_watched:  # what hooks have seen may be kept, and the leaves before this one overwrite what they get
            position.state = map_tensors(Tensor.clone, position.state)
            grads = tuple(None if grad is None else grad.clone() for grad in as_tuple(position.grad))
            position.grad = grads if isinstance(position.grad, tuple) else grads[0]

    def tracked(self, modules: Sequence[nn.Module]) -> list[Tensor]:
        """What modules are differentiated with respect to: what stands in for their tensors, and these themselves.

        A module may hold the parameters themselves in a list of its own, or as attributes, as under FSDP.
        """
        stand_ins, known = self.snapshot.stand_ins_in(modules), self.snapshot.originals
        originals = (known[stand_in] for stand_in in stand_ins if stand_in in known)
        return [*stand_ins, *(p for p in originals if p.requires_grad)]

    def collect(self, tensors: Iterable[Tensor], grads: Iterable[Tensor | None]) -> None:
        """Add to the gradients of parameters and conditions, which may belong to several leaves."""
        for tensor, grad in zip(tensors, grads, strict=True):
            if grad is not None:
                _add(self.gradients, self.snapshot.originals.get(tensor, tensor), grad)

    def finish(self) -> None:
        """Differentiate the shared values at once, and only now, when the leaves' graphs are gone.

        Raises:
            RuntimeError: if trained values depend on no parameter of their module, but on views, as FSDP makes them.
        """
        with torch.enable_grad():
            values = values_at_once(self.value_grads)
        trained = {module: grad for module, grad in self.value_grads.items() if values[module].requires_grad}
        if not trained:
            return
        tracked = self.tracked(all_modules(nn.ModuleList(trained)))
        if not tracked:
            raise RuntimeError("expected the modules to hold parameters under backprop='reversible', got views")
        outputs = [values[module] for module in trained]
        grads = [grad.to(output.dtype) for output, grad in zip(outputs, trained.values(), strict=True)]
        self.collect(tracked, apart(differentiated(outputs, tracked, grads), grads))


def _add(grads: dict[Key, Tensor], key: Key, grad: Tensor) -> None:
    known = grads.get(key)
    grads[key] = grad if known is None else known + grad


class LeafBackward:
    """What a rule may use: condition, gradient of the log-determinant, repeatable evaluation, differentiation."""

    def __init__(
        self, walk: BackwardWalk, layer: InvertibleModule, modules: Sequence[nn.Module], start: LeafStart | None
    ) -> None:
        self.grad_logdet = walk.grad_logdet
        self.condition = walk.condition if layer.takes_condition else None
        conditions = (tensor for tensor in tensors_of(self.condition) if tensor.requires_grad)
        self._tracked = [*walk.tracked(modules), *conditions]
        self._walk = walk
        self._start = start

    @property
    def draws_random_numbers(self) -> bool:
        return self._start is not None and self._start.draws

    def replay(self) -> AbstractContextManager[None]:
        """A context in which the leaf draws the same numbers (dropout) and starts from the same buffers as in the
        forward pass."""
        return replayed(self._start)

    def laid_out(self, state: State) -> State:
        """A state of the shape of the leaf's input, in the memory layout from which the leaf drew its numbers."""
        return laid_out(self._start, state)

    def differentiate(self, outputs: State | Recorded, x: State, grad_outputs: State, *, keeps: bool = True) -> State:
        """Gradient for ``x``, in the form of ``x``; those for the leaf's parameters and condition go to the walk.

        It lies in memory of its own. Unless the caller ``keeps`` ``grad_outputs``, it may lie in theirs.
        """
        grads = as_tuple(self.differentiate_sparsely(outputs, x, grad_outputs, keeps=keeps))
        filled = tuple(torch.zeros_like(i) if g is None else g for i, g in zip(tensors_of(x), grads, strict=True))
        return filled if isinstance(x, tuple) else filled[0]

    def differentiate_sparsely(
        self, outputs: State | Recorded, x: State, grad_outputs: State, *, keeps: bool = True
    ) -> State:
        """The same with None for what has no gradient; with ``x=()``, for parameters and condition alone."""
        inputs = tensors_of(x)
        pairs = zip(as_tuple(outputs), as_tuple(grad_outputs), strict=True)
        recorded = [(Recorded.of(out), grad) for out, grad in pairs if grad is not None]
        tracked = [(out.edge, grad.to(out.dtype)) for out, grad in recorded if out.edge is not None]
        grads: Sequence[Tensor | None] = (None,) * len(inputs)
        if tracked:
            found = differentiated([o for o, _ in tracked], [*inputs, *self._tracked], [g for _, g in tracked])
            grads, rest = found[: len(inputs)], found[len(inputs) :]
            # Autograd may return one tensor for two inputs, such as those of a sum, or the one that it was given.
            passed = [grad for _, grad in recorded]
            if any(map(repeats_numbers, grads)) or share_memory([*found, *passed]):
                grads = apart(grads, passed if keeps else [self.grad_logdet])
                rest = apart(rest, [*passed, *grads])
            self._walk.collect(self._tracked, rest)
        return tuple(grads) if isinstance(x, tuple) else grads[0]

    def differentiate_value(self, module: SharedValue, grad: Tensor) -> None:
        """Hand the gradient for the value of a shared module to the walk, which differentiates the value at its end."""
        _add(self._walk.value_grads, module, grad)


def expand(part: InvertibleModule) -> InvertibleModule:
    """The same map with its structure visible: without the padding of a network, and with inverses at the leaves."""
    part = part.bijection
    if isinstance(part, Inverse):
        inner = part.module.bijection
        if isinstance(inner, Composite | Inverse):
            return expand(inner.inverted())
    return part
