"""The ``memcnn`` policy: each leaf inside a `memcnn.InvertibleModuleWrapper` (van de Leemput et al., 2019)."""

from __future__ import annotations

from typing import Any

import memcnn
from torch import Tensor, nn

from .module import Condition, InvertibleModule, State, evaluate, past_policies, tensors_of
from .replay import AutocastState, FrozenStatistics, Replay, RngState


class _Repeatable(nn.Module):
    """A leaf as memcnn calls it: forward, then in backward inverse and forward again.

    memcnn moves batch statistics at each of the three and draws a new dropout mask at the last; here, the second and
    third repeat the first, in its autocast state. memcnn knows no conditions: they pass through as further inputs and
    outputs; those of integers, which it would try to differentiate, past it.
    """

    def __init__(self, leaf: InvertibleModule, method: str, x: State, condition: Condition) -> None:
        super().__init__()
        self.leaf = leaf
        self._method = method
        self._x_is_tuple = isinstance(x, tuple)
        self._num_inputs = len(tensors_of(x))
        self._condition_is_tuple = isinstance(condition, tuple)
        self._integers = [None if part.is_floating_point() else part for part in tensors_of(condition)]
        self._autocast = AutocastState(tensors_of(x)[0].device.type)
        self._start: RngState | None = None

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        x = tensors[: self._num_inputs]
        state, conditions = x if self._x_is_tuple else x[0], tensors[self._num_inputs :]
        if self._start is None:
            self._start = RngState(tensors[0].device)
            with past_policies():
                result = evaluate(self.leaf, self._method, state, self._condition(conditions))
            outputs = _with_memory_of_their_own(self._flat(result), tensors)
            # `.data`: memcnn detaches in place what it gets, and torch refuses that for views, reshaped tensors say.
            return tuple(part.data for part in (*outputs, *(c.clone() for c in conditions)))
        result = self._again(self._method, state, conditions)
        # memcnn differentiates every output: one that is constant, a log-determinant say, needs a path to the input.
        path = 0 * tensors[0].flatten(1)[:, 0]
        parts = (part if part.requires_grad else part + path for part in self._flat(result))
        return (*parts, *(c.clone() for c in conditions))

    def inverse(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        num_conditions = len(tensors) - self._num_outputs - (self._method == "forward_and_logdet")
        y = tensors[: self._num_outputs]
        conditions = tensors[len(tensors) - num_conditions :]
        x = self._again("inverse", y if self._y_is_tuple else y[0], conditions)
        return (*tensors_of(x), *conditions)

    def form(self, flat: Any) -> Any:
        """What the leaf's method returns, from the flat outputs."""
        flat = tensors_of(flat)
        y = flat[: self._num_outputs] if self._y_is_tuple else flat[0]
        return (y, flat[self._num_outputs]) if self._method == "forward_and_logdet" else y

    def _flat(self, result: Any) -> tuple[Tensor, ...]:
        y, logdet = result if self._method == "forward_and_logdet" else (result, None)
        self._y_is_tuple = isinstance(y, tuple)
        self._num_outputs = len(tensors_of(y))
        return (*tensors_of(y), *tensors_of(logdet))

    def _condition(self, floating: tuple[Tensor, ...]) -> Condition:
        if not self._integers:
            return None
        rest = iter(floating)
        conditions = tuple(next(rest) if part is None else part for part in self._integers)
        return conditions if self._condition_is_tuple else conditions[0]

    def _again(self, method: str, state: State, conditions: tuple[Tensor, ...]) -> Any:
        with past_policies(), Replay(self._start), FrozenStatistics(self.leaf), self._autocast():
            return evaluate(self.leaf, method, state, self._condition(conditions))


def wrapped_by_memcnn(leaf: InvertibleModule, method: str, x: State, condition: Condition) -> Any:
    """Evaluate one leaf through memcnn, which frees the leaf's input until backward rebuilds it."""
    # memcnn may free only what another wrapped leaf made: not a caller's tensor, nor a view into shared memory.
    inputs = [part if _made_by_memcnn(part) else part.clone() for part in tensors_of(x)]
    repeatable = _Repeatable(leaf, method, x, condition)
    conditions = [part.clone() for part in tensors_of(condition) if part.is_floating_point()]
    return repeatable.form(memcnn.InvertibleModuleWrapper(repeatable)(*inputs, *conditions))


def _with_memory_of_their_own(outputs: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Outputs that share no memory with inputs or each other: memcnn frees each by itself."""
    taken = {part.untyped_storage().data_ptr() for part in inputs}
    own = []
    for part in outputs:
        own.append(part.clone() if part.untyped_storage().data_ptr() in taken else part)
        taken.add(part.untyped_storage().data_ptr())
    return own


def _made_by_memcnn(tensor: Tensor) -> bool:
    return type(tensor.grad_fn).__name__ == "InvertibleCheckpointFunctionBackward"
