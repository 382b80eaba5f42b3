"""The memory layout of states. Torch draws random masks in the order of memory: who replays them needs it again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..module import State, map_tensors, tensors_of
from .ownership import is_nested


@dataclass(frozen=True)
class Layout:
    """Shapes and strides of the tensors of a state."""

    shapes: tuple[torch.Size, ...]
    strides: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, state: State) -> Layout:
        tensors = tensors_of(state)
        return cls(tuple(part.shape for part in tensors), tuple(map(_strides, tensors)))

    def restored(self, state: State) -> State:
        """A state in this layout, copied where it has another. One of other shapes is returned as it is."""
        if tuple(part.shape for part in tensors_of(state)) != self.shapes:
            return state
        strides = iter(self.strides)
        return map_tensors(lambda part: _with_strides(part, next(strides)), state)


def _strides(part: Tensor) -> tuple[int, ...]:
    """Those of a tensor, or of a copy of it if it has several numbers in one place, as `torch.Tensor.expand` does."""
    return (part if is_nested(part.shape, part.stride()) else torch.empty_like(part, device="meta")).stride()


def _with_strides(part: Tensor, strides: tuple[int, ...]) -> Tensor:
    if part.stride() == strides:
        return part
    return torch.empty_strided(part.shape, strides, dtype=part.dtype, device=part.device).copy_(part)
