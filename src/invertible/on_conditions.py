"""Parts of a graph that read some of its conditions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .composites import Composite
from .engine.walk import LeafBackward, backward_rule, default_rule, expand, go_back
from .module import (
    FORWARD,
    FORWARD_AND_LOGDET,
    INVERSE,
    INVERSE_AND_LOGDET,
    Condition,
    InvertibleModule,
    State,
    tensors_of,
)
from .shapes import as_state


class OnConditions(InvertibleModule):
    """A part that sees only some of the tensors of a condition, in an order of its own."""

    takes_condition = True

    def __init__(self, part: InvertibleModule, indices: Sequence[int]) -> None:
        super().__init__()
        self.part = part
        self.indices = list(indices)

    def select(self, condition: Condition) -> Condition:
        """The part's own condition."""
        tensors = tensors_of(condition)
        if len(tensors) <= max(self.indices):
            raise ValueError(f"expected at least {max(self.indices) + 1} conditions, got {len(tensors)}")
        return as_state([tensors[index] for index in self.indices])

    def forward(self, x: State, condition: Condition = None) -> State:
        return FORWARD(self.part, x, self.select(condition))

    def inverse(self, y: State, condition: Condition = None) -> State:
        return INVERSE(self.part, y, self.select(condition))

    def forward_and_logdet(self, x: State, condition: Condition = None) -> tuple[State, Tensor]:
        return FORWARD_AND_LOGDET(self.part, x, self.select(condition))

    def inverse_and_logdet(self, y: State, condition: Condition = None) -> tuple[State, Tensor]:
        return INVERSE_AND_LOGDET(self.part, y, self.select(condition))

    def inverted(self) -> OnConditions:
        return OnConditions(self.part.inverted(), self.indices)

    def extra_repr(self) -> str:
        return f"conditions={self.indices}"


@backward_rule(OnConditions)
def on_conditions(leaf: LeafBackward, layer: OnConditions, y: State, grad: State) -> tuple[State, State]:
    """The part's own rule, with the part's own condition."""
    inner = layer.part
    if isinstance(expand(inner), Composite):
        return default_rule(leaf, layer, y, grad)
    leaf.condition = layer.select(leaf.condition)
    return go_back(leaf, inner, y, grad)
