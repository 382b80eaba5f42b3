"""Bijections made of others, so that a network is one tree."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, overload

from torch import Tensor

from .module import (
    FORWARD,
    FORWARD_AND_LOGDET,
    BackStep,
    Condition,
    InvertibleModule,
    Position,
    State,
    Step,
    zero_logdet,
)


class Composite(InvertibleModule):
    """A bijection made of others.

    A subclass says three things: how a state runs through its parts, how it runs back together with a gradient, and
    what its inverse is made of. Forward, inverse, log-determinant, conditions and memory-efficient backpropagation
    follow.

    Example:
        >>> class Twice(Composite):
        ...     def __init__(self, part):
        ...         super().__init__()
        ...         self.part = part
        ...     def run(self, x, step):
        ...         return step(self.part, step(self.part, x))
        ...     def run_back(self, position, step):
        ...         step(self.part, position), step(self.part, position)
        ...     def inverted(self):
        ...         return Twice(self.part.inverted())
        >>> Twice(FixedAffine(3.0)).forward_and_logdet(torch.ones(1, 1))  # 2 log 3
        (tensor([[9.]]), tensor([2.1972]))
    """

    def run(self, x: State, step: Step) -> State:
        """``f(x)``, where ``step(part, x)`` evaluates each part."""
        raise NotImplementedError

    def run_back(self, position: Position, step: BackStep) -> None:
        """Move from output and output gradient to input and input gradient by ``step(part, position)`` for each part.

        Both belong to the engine, which may overwrite them.
        """
        raise NotImplementedError

    @property
    def takes_condition(self) -> bool:  # type: ignore[override]
        return any(part.takes_condition for part in self.children() if isinstance(part, InvertibleModule))

    def forward(self, x: State, condition: Condition = None) -> State:
        return self.run(x, lambda part, state: FORWARD(part, state, condition))

    def inverse(self, y: State, condition: Condition = None) -> State:
        return FORWARD(self.inverted(), y, condition)

    def forward_and_logdet(self, x: State, condition: Condition = None) -> tuple[State, Tensor]:
        total = zero_logdet(x)

        def step(part: InvertibleModule, state: State) -> State:
            nonlocal total
            state, logdet = FORWARD_AND_LOGDET(part, state, condition)
            total = total + logdet
            return state

        return self.run(x, step), total

    def inverse_and_logdet(self, y: State, condition: Condition = None) -> tuple[State, Tensor]:
        return FORWARD_AND_LOGDET(self.inverted(), y, condition)


class Sequential(Composite):
    """``f = f_n ∘ … ∘ f_1``. Takes the parts, or one mapping from names to parts, as ``torch.nn.Sequential`` does.

    Args:
        parts: f_1, …, f_n.

    Raises:
        TypeError: for a part that is no `InvertibleModule`.

    Example:
        >>> net = Sequential(ActNorm(4), InvertibleConv1x1(4), SneakyReLU())
        >>> y, logdet = net.forward_and_logdet(torch.randn(2, 4, 8, 8))  # (2, 4, 8, 8), (2,)
    """

    def __init__(self, *parts: InvertibleModule | OrderedDict[str, InvertibleModule]) -> None:
        super().__init__()
        named: dict[str, Any] = {str(i): part for i, part in enumerate(parts)}
        if len(parts) == 1 and isinstance(parts[0], dict):
            named = parts[0]
        for name, part in named.items():
            self._add(name, part)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[InvertibleModule]:
        return iter(self._modules.values())  # type: ignore[arg-type]

    @overload
    def __getitem__(self, index: int) -> InvertibleModule: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | slice) -> InvertibleModule:
        """A part, or a sequence of parts under their names and this one's backprop policy."""
        if not isinstance(index, slice):
            return list(self)[index]
        parts = Sequential(OrderedDict(list(self._modules.items())[index]))  # type: ignore[arg-type]
        parts.backprop_policy = self.backprop_policy
        return parts

    def append(self, part: InvertibleModule) -> Sequential:
        """Add a part at the end, named by the first free number from the length on, and return the sequence."""
        names = map(str, itertools.count(len(self)))
        self._add(next(name for name in names if name not in self._modules), part)
        return self

    def _add(self, name: str, part: InvertibleModule) -> None:
        if not isinstance(part, InvertibleModule):
            raise TypeError(f"expected an InvertibleModule as part {name!r}, got {type(part).__name__}")
        self.add_module(name, part)

    def run(self, x: State, step: Step) -> State:
        for part in self:
            x = step(part, x)
        return x

    def run_back(self, position: Position, step: BackStep) -> None:
        for part in reversed(list(self)):
            step(part, position)

    def inverted(self) -> Sequential:
        return Sequential(*(part.inverted() for part in reversed(list(self))))
