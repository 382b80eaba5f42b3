"""The ``memcnn`` policy: each leaf inside a `memcnn.InvertibleModuleWrapper` (van de Leemput et al., 2019)."""

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ..extras import extra
from ..module import (
    INVERSE,
    Call,
    Condition,
    InvertibleModule,
    State,
    all_modules,
    map_tensors,
    past_policies,
    tensors_of,
)
from .attributes import tensor_attributes
from .replay import AutocastState, LeafStart, laid_out, replayed
from .snapshot import Snapshot

with extra("memcnn"):
    import memcnn


class MemcnnCall:
    """One call of a root: evaluates each leaf through memcnn, which frees its input until backward rebuilds it.

    memcnn may free the output of another leaf of the same call. It must not free what a caller holds: the input, and
    results of earlier calls.
    """

    def __init__(self) -> None:
        self._made: dict[int, weakref.ref[Tensor]] = {}

    def __call__(self, leaf: InvertibleModule, call: Call, x: State, condition: Condition) -> Any:
        inputs = [part if self._has_made(part) else part.clone() for part in tensors_of(x)]
        repeatable = _Repeatable(leaf, call, x, condition)
        conditions = [part.clone() for part in tensors_of(condition) if part.is_floating_point()]
        outputs = tensors_of(memcnn.InvertibleModuleWrapper(repeatable)(*inputs, *conditions))
        self._made |= {id(part): weakref.ref(part) for part in outputs}
        return repeatable.form(outputs)

    def _has_made(self, tensor: Tensor) -> bool:
        reference = self._made.get(id(tensor))
        return reference is not None and reference() is tensor


class _Together(torch.autograd.Function):
    """The same tensors, whose gradients go back together: zeros for those that are not in the loss."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tensors

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return grads


def together(state: State) -> State:
    """A state whose tensors are all walked back from, as soon as one is in the loss.

    Otherwise memcnn would read what it has freed: the part behind a branching inverts all its outputs, of which one
    is rebuilt only where its own branch is walked back.
    """
    if not isinstance(state, tuple) or not any(part.requires_grad for part in state):
        return state
    return _Together.apply(*state)


class _StandIn(torch.autograd.Function):
    """What memcnn differentiates in the place of a parameter, so that the parameter's hooks do not see it at work."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, unused: set[Tensor]) -> Tensor:
        ctx.parameter, ctx.unused = parameter, unused
        return parameter.detach()  # a view would lose its place in the graph when the parameter is set in place

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        return (None if ctx.parameter in ctx.unused else grad), None


class _Repeatable(nn.Module):
    """A leaf as memcnn calls it: forward, then in backward inverse and forward again.

    memcnn alone would update batch statistics in all three and draw a new dropout mask in the last. Here, the second
    and third repeat the first, and all three run in the caller's autocast state. memcnn knows no conditions, so these
    are further inputs and outputs, except conditions of integers: memcnn would try to differentiate them.
    """

    def __init__(self, leaf: InvertibleModule, call: Call, x: State, condition: Condition) -> None:
        super().__init__()
        self._leaf = [leaf]  # not a submodule: memcnn is to ask this module for its parameters
        self._call = call
        parts, self._form = tree_flatten((x, condition))
        self._passes = [part is not None and part.is_floating_point() for part in parts]
        self._beside = [None if passes else part for part, passes in zip(parts, self._passes, strict=True)]
        self._num_inputs = len(tensors_of(x))
        self._autocast = AutocastState(tensors_of(x)[0].device.type)
        self._unused: set[Tensor] = set()
        self._snapshot = Snapshot(
            leaf,
            lambda t: _StandIn.apply(t, self._unused) if t.requires_grad else t.detach(),
            tensor_attributes(leaf, all_modules(leaf)),
        )
        self._has_run = False

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        """What memcnn differentiates."""
        return iter([*self._snapshot.originals, *self._snapshot.untold])

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        conditions = tensors[self._num_inputs :]
        if not self._has_run:
            outputs = self._first(tensors)
            # `.data`: memcnn detaches in place what it gets, and torch refuses that for views, such as reshapes.
            return tuple(part.data for part in (*outputs, *(c.clone() for c in conditions)))
        result = tree_leaves(self._again(self._call, *self._arguments(tensors)))
        # memcnn differentiates every output with respect to everything. So a constant output, such as some
        # log-determinants, needs a path to the input, and an unused parameter a path to the output.
        path = 0 * tensors[0].flatten(1)[:, 0]
        parts = [part if part.requires_grad else part + path for part in result]
        for parameter in self._without_path_to(parts):
            self._unused.add(self._snapshot.originals.get(parameter, parameter))
            parts[0] = parts[0] + 0 * parameter.flatten()[0].to(parts[0].dtype)
        return (*parts, *(c.clone() for c in conditions))

    def inverse(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        self._snapshot.refuse_overwritten()
        self._snapshot.refuse_changes()
        conditions = tensors[self._num_outputs :]
        result = self.form(tensors)
        _, condition = self._arguments((*[None] * self._num_inputs, *conditions))
        y = laid_out(self._start, result[0] if self._call.logdet else result)
        x = laid_out(self._start, self._again(INVERSE, y, condition))
        rebuilt = (part.to(dtype) for part, dtype in zip(tensors_of(x), self._input_dtypes, strict=True))
        return (*rebuilt, *conditions)

    def form(self, flat: tuple[Tensor, ...]) -> Any:
        """What the leaf's method returns, from the flat outputs."""
        return tree_unflatten(flat[: self._num_outputs], self._result_form)

    def _arguments(self, passed: tuple[Tensor | None, ...]) -> tuple[State, Condition]:
        """State and condition, from what passes through memcnn."""
        rest = iter(passed)
        pairs = zip(self._passes, self._beside, strict=True)
        return tree_unflatten([next(rest) if passes else part for passes, part in pairs], self._form)

    def _first(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        """The first evaluation: outputs that memcnn may free."""
        leaf, modules = self._leaf[0], all_modules(self._leaf[0])
        # Hooks see, and may keep, what the leaf or a part of it reads and returns.
        is_watched = any(module._forward_hooks or module._forward_pre_hooks for module in modules)
        self._input_dtypes = [part.dtype for part in inputs[: self._num_inputs]]
        state, condition = self._arguments(inputs)
        start = LeafStart(modules, inputs[0].device)
        # memcnn turns CUDA's autocast off here, but not in backward.
        with past_policies(), self._autocast():
            seen = map_tensors(Tensor.clone, state) if is_watched else state
            result, self._result_form = tree_flatten(self._call(leaf, seen, condition))
        self._num_outputs = len(result)
        self._start, self._has_run = start.settle(seen), True
        self._snapshot.mark()  # the leaf may have set parameters from its first batch
        return [part.clone() for part in result] if is_watched else _with_memory_of_their_own(result, inputs)

    def _again(self, call: Call, state: State, condition: Condition) -> Any:
        with past_policies(), self._snapshot.reused(), replayed(self._start), self._autocast():
            return call(self._leaf[0], state, condition)

    def _without_path_to(self, outputs: Iterable[Tensor]) -> list[Tensor]:
        """The trained parameters on which no output depends.

        Raises:
            RuntimeError: for an attribute on which they depend and of which memcnn was not told.
        """
        seen, nodes = set(), [part.grad_fn for part in outputs]
        for node in nodes:  # which grows
            if node is not None and node not in seen:
                seen.add(node)
                nodes += [before for before, _ in node.next_functions]
        self._snapshot.refuse_lost({t for t in self._snapshot.untold if get_gradient_edge(t).node in seen})
        trained = (p for p in self._snapshot.originals if p.requires_grad)
        return [*(p for p in trained if p.grad_fn not in seen), *self._snapshot.untold]


def _with_memory_of_their_own(outputs: Iterable[Tensor], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Outputs that share no memory with inputs or each other: memcnn frees each by itself."""
    taken = {part.untyped_storage().data_ptr() for part in inputs}
    own = []
    for part in outputs:
        own.append(part.clone() if part.untyped_storage().data_ptr() in taken else part)
        taken.add(part.untyped_storage().data_ptr())
    return own
