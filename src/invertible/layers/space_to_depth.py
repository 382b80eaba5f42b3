"""Cutting the space of a state into blocks, and putting it together again."""

import math
from collections.abc import Sequence

from torch import Tensor


def coarse_size(spatial: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Number of blocks per spatial dimension.

    Raises:
        ValueError: for another number of dimensions, or a size that is not divisible by the stride.
    """
    if len(spatial) != len(stride) or any(n % s for n, s in zip(spatial, stride, strict=True)):
        raise ValueError(f"expected a spatial size divisible by the stride {tuple(stride)}, got {tuple(spatial)}")
    return [n // s for n, s in zip(spatial, stride, strict=True)]


def to_blocks(x: Tensor, stride: Sequence[int]) -> Tensor:
    """A state (B, C, N₁, …) as (B, C, σ, N₁/s₁, …): the σ = s₁⋯s_d voxels of each block in row-major order.

    Args:
        x: the state; its sizes N₁, … must be multiples of the stride.
        stride: side lengths s₁, …, s_d of a block.

    Example:
        >>> to_blocks(torch.randn(2, 3, 8, 8), [2, 2]).shape
        torch.Size([2, 3, 4, 4, 4])
    """
    coarse = coarse_size(x.shape[2:], stride)
    d = len(stride)
    split = [size for pair in zip(coarse, stride, strict=True) for size in pair]
    x = x.reshape(*x.shape[:2], *split)  # (B, C, N₁/s₁, s₁, N₂/s₂, s₂, …)
    within, across = range(3, 3 + 2 * d, 2), range(2, 2 + 2 * d, 2)
    return x.permute(0, 1, *within, *across).reshape(*x.shape[:2], math.prod(stride), *coarse)


def from_blocks(blocks: Tensor, stride: Sequence[int]) -> Tensor:
    """The inverse of `to_blocks`."""
    d, coarse = len(stride), blocks.shape[3:]
    x = blocks.reshape(*blocks.shape[:2], *stride, *coarse)  # (B, C, s₁, …, N₁/s₁, …)
    order = [axis for i in range(d) for axis in (2 + d + i, 2 + i)]
    return x.permute(0, 1, *order).reshape(*blocks.shape[:2], *(n * s for n, s in zip(coarse, stride, strict=True)))
