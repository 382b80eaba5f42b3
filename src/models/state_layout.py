"""States as matrices in the order of their memory, so that sums and updates run along it, piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Temporaries have this many numbers, or an eighth of the state's if that is more.
_CHUNK = 2**16
_ROW = 512  # numbers that one vector operation handles, if a channel's are not side by side


def has_no_gaps(x: Tensor) -> bool:
    """Whether a state has its channels first or last in memory, without gaps."""
    return x.is_contiguous() or x.movedim(1, -1).is_contiguous()


@dataclass(frozen=True)
class StateLayout:
    """States (B, C, *spatial) as one matrix per sample, without a copy, in the order of their memory.

    With the channels first, its rows are the channels: (B, C, N). With the channels last, a row holds all channels of
    k neighbouring voxels: (B, N / k, k C).
    """

    channels: int
    voxels_per_row: int | None
    precision: torch.dtype

    @classmethod
    def of(cls, x: Tensor, of_planes: bool = False) -> StateLayout:
        """Of a state, or of any of its planes."""
        channels, voxels = x.shape[1], math.prod(x.shape[3 if of_planes else 2 :])
        is_last = not x.is_contiguous()  # else its channels are first
        longest = 2 ** (max(_ROW // channels, 1).bit_length() - 1)
        return cls(
            channels, math.gcd(voxels, longest) if is_last else None, torch.promote_types(x.dtype, torch.float32)
        )

    def matrix(self, x: Tensor) -> Tensor:
        if self.voxels_per_row is None:
            return x.view(x.shape[0], self.channels, -1)
        return x.movedim(1, -1).view(x.shape[0], -1, self.voxels_per_row * self.channels)

    def spread(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Numbers for each channel, each (B, C) or (B, 1), in the form of matrices that broadcast."""
        together = torch.stack(torch.broadcast_tensors(*values))
        if self.voxels_per_row is None:
            return together[..., None].unbind()
        num, batch = together.shape[:2]
        # Contiguous: numbers of stride zero take four times as long.
        rows = together[:, :, None].expand(num, batch, self.voxels_per_row, self.channels).contiguous()
        return rows.view(num, batch, 1, -1).unbind()

    def sum(self, matrix: Tensor) -> Tensor:
        """The sum of each channel, (B, C)."""
        if self.voxels_per_row is None:
            return matrix.sum(2, dtype=self.precision)
        return matrix.sum(1, dtype=self.precision).view(len(matrix), self.voxels_per_row, self.channels).sum(1)

    def matrix_like(self, matrix: Tensor, x: Tensor) -> Tensor:
        """A state in another layout as a matrix of this shape, by a copy where that is needed."""
        return (x if self.voxels_per_row is None else x.movedim(1, -1)).reshape(matrix.shape)

    def planes(self, *states: Tensor) -> list[tuple[Tensor, ...]]:
        """The same planes of each state, in about 8 parts that are not too small."""
        first = states[0]
        count = max(max(_CHUNK, first.numel() // 8) * first.shape[2] // first.numel(), 1)
        return list(zip(*(state.split(count, 2) for state in states), strict=True))

    def chunks(self, *matrices: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The same pieces of each matrix, about 8 and not too small."""
        dim, first = (2, matrices[0]) if self.voxels_per_row is None else (1, matrices[0])
        size = max(_CHUNK, first.numel() // 8)
        length = max(size * first.shape[dim] // first.numel(), 1)
        return zip(*(matrix.split(length, dim) for matrix in matrices), strict=True)
