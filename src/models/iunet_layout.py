"""The arithmetic of an iUNet's levels: strides, channels and couplings, and a drawing of them as text."""

import math
import warnings
from collections.abc import Sequence

from ..invertible import per_dimension
from ..invertible.arguments import check_positive


def strides_per_level(
    strides: int | Sequence[int | Sequence[int]], num_downsamplings: int, spatial_dims: int
) -> list[tuple[int, ...]]:
    """One stride tuple per downsampling, from one number, one per dimension, or a list of either per downsampling.

    A flat list of numbers is read per dimension if its length is ``spatial_dims``, else per downsampling.

    Raises:
        ValueError: for other forms.
    """
    if isinstance(strides, int) or (len(strides) == spatial_dims and all(isinstance(s, int) for s in strides)):
        return [per_dimension(strides, spatial_dims, "strides")] * num_downsamplings  # type: ignore[arg-type]
    if len(strides) != num_downsamplings:
        raise ValueError(
            f"expected one stride, {spatial_dims} (one per dimension) or a list of {num_downsamplings} (one per "
            f"downsampling), got {list(strides)}"
        )
    return [per_dimension(s, spatial_dims, "strides") for s in strides]


def achievable_channels(desired: Sequence[int], strides: Sequence[tuple[int, ...]]) -> list[int]:
    """The channels per level closest to the desired ones: ``C_{i+1} = σ_i k`` with ``1 ≤ k ≤ C_i − 1``.

    Raises:
        ValueError: where a level has only one channel, which cannot be split.
    """
    channels = [desired[0]]
    for wanted, stride in zip(desired[1:], strides, strict=True):
        factor = math.prod(stride)
        channels.append(factor * _split_off(channels, round(wanted / factor)))
    if channels != list(desired):
        warnings.warn(
            f"channels={list(desired)} with strides {list(strides)} cannot be achieved exactly; "
            f"using the closest achievable channels={channels}",
            stacklevel=3,
        )
    return channels


def split_channels(first: int, num_levels: int, split_fraction: float, factor: int) -> list[int]:
    """Channels per level where the same fraction is split off on each: ``C_{i+1} = factor · ⌊split_fraction C_i⌋``.

    At least one channel is split off and at least one stays.

    Raises:
        ValueError: without a level, or where a level has only one channel, which cannot be split.
    """
    check_positive(num_levels=num_levels)
    channels = [first]
    for _ in range(num_levels - 1):
        wanted = math.floor(split_fraction * channels[-1] + 1e-9)  # 0.29 · 100 rounds to less than 29
        channels.append(factor * _split_off(channels, wanted))
    return channels


def _split_off(channels: Sequence[int], wanted: int) -> int:
    """How many of the last level's channels go on to the next: as wanted, but at least one, and at least one stays."""
    if channels[-1] < 2:
        raise ValueError(f"expected at least 2 channels to split, got {channels[-1]} on level {len(channels)}")
    return min(max(wanted, 1), channels[-1] - 1)


def couplings_per_level(num_couplings: int | Sequence[int], num_levels: int) -> list[int]:
    """One number of couplings per level, from one for all or a list.

    Raises:
        ValueError: for another length, or a negative number.
    """
    counts = [num_couplings] * num_levels if isinstance(num_couplings, int) else list(num_couplings)
    if len(counts) != num_levels or min(counts) < 0:
        raise ValueError(f"expected num_couplings to be one non-negative number or {num_levels} of them, got {counts}")
    return counts


def layout(channels: Sequence[int], num_couplings: Sequence[int], strides: Sequence[tuple[int, ...]]) -> str:
    """Lines such as ``16-16-(12+4) … (12+4)-16-16``, one per level, indented by depth."""
    sides = []
    for level, (width, count) in enumerate(zip(channels, num_couplings, strict=True)):
        blocks = [str(width)] * max(count, 1)
        split = ""
        if level < len(channels) - 1:
            split_off = channels[level + 1] // math.prod(strides[level])
            split = f"({width - split_off}+{split_off})"
        sides.append((blocks, split))
    lines: list[str] = []
    for blocks, split in reversed(sides):
        left, right = "-".join([*blocks, split] if split else blocks), "-".join([split, *blocks] if split else blocks)
        below = len(lines[0]) if lines else 0
        gap = max(below - 2 * len(split), 3)
        lines = [left + "-" * gap + right, *lines]
    total = len(lines[0])
    return "\n".join(line.center(total).rstrip() for line in lines)


def doubled_channels(base_channels: int, num_levels: int) -> list[int]:
    """Channels ``base · 2^level``, as for a split fraction of 1/4 in 3D or 1/2 in 2D, with stride 2.

    Raises:
        ValueError: for numbers below 1.
    """
    check_positive(base_channels=base_channels, num_levels=num_levels)
    return [base_channels * 2**level for level in range(num_levels)]
