"""The multi-scale architecture of RealNVP as one bijection: latents that are factored out stay in the one state."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

from ..invertible import Checkerboard, Inverse, InvertibleModule, OnChannels, Permutation, Sequential, Step
from .blocks import check_spatial_dims


def multiscale(levels: Sequence[Sequence[InvertibleModule]], in_channels: int, *, spatial_dims: int = 2) -> Sequential:
    """Squeeze, steps of a level, next level on half of the channels, unsqueeze (Dinh et al., 2017, section 3.6).

    ``level_i = unsqueeze ∘ OnChannels(keep the first half, level_{i+1}) ∘ steps_i ∘ squeeze``, and the last level has
    no split. The squeeze is a `Checkerboard` with stride 2. So a state (B, C, *spatial) becomes a latent of the same
    shape, in which a factored-out number lies near the voxels that it was made from; no list of latents is needed, and
    the whole flow is one tree. Level i works on the channels that `channels_per_level` says; the first half of what
    its steps return is factored out, the second half goes on.

    The steps may make the half that is factored out depend on the half that goes on: a coupling with ``flip`` at their
    end is Glow's learned prior.

    Args:
        levels: the steps of each level, finest first.
        in_channels: number of channels C.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: without a level; for a state with another number of channels, or whose spatial size is not divisible
            by 2 to the number of levels.
    """
    widths = channels_per_level(in_channels, len(levels), spatial_dims)
    level: _Level | None = None
    for steps, width in reversed(list(zip(levels, widths, strict=True))):
        coarser = None if level is None else OnChannels(level, width // 2)
        num_levels = 1 if level is None else level.num_levels + 1
        level = _Level(Sequential(*steps), coarser, width, num_levels, spatial_dims)
    assert level is not None
    return level


class _Level(Sequential):
    """One level with all that are coarser; it refuses states that do not fit before anything is computed."""

    def __init__(
        self, steps: Sequential, coarser: OnChannels | None, width: int, num_levels: int, spatial_dims: int
    ) -> None:
        squeeze = Checkerboard(2, spatial_dims=spatial_dims)
        parts: OrderedDict[str, InvertibleModule] = OrderedDict(squeeze=squeeze, steps=steps)
        if coarser is not None:
            parts["coarser"] = coarser
        parts["unsqueeze"] = Inverse(squeeze)
        super().__init__(parts)
        self.in_channels = width // 2**spatial_dims
        self.num_levels = num_levels

    def run(self, x: Tensor, step: Step) -> Tensor:
        if x.shape[1] != self.in_channels:
            raise ValueError(f"expected {self.in_channels} channels, got {x.shape[1]}")
        if any(size % 2**self.num_levels for size in x.shape[2:]):
            raise ValueError(
                f"expected a spatial size divisible by 2^{self.num_levels} = {2**self.num_levels} for "
                f"{self.num_levels} levels, got {tuple(x.shape[2:])}"
            )
        return super().run(x, step)


def channels_per_level(in_channels: int, num_levels: int, spatial_dims: int = 2) -> list[int]:
    """Channels that the steps of each level see: ``σ (σ/2)ⁱ C`` on level i = 0, 1, …, with σ = 2^spatial_dims.

    A squeeze makes σ channels of one, and half of a level's channels go on: in 2D, 3 channels become 12, 24, 48, ….

    Raises:
        ValueError: without a channel or a level.
    """
    if in_channels < 1 or num_levels < 1:
        raise ValueError(f"expected at least one channel and one level, got {in_channels} and {num_levels}")
    factor = 2 ** check_spatial_dims(spatial_dims)
    return [factor * (factor // 2) ** level * in_channels for level in range(num_levels)]


def group_by_parity(channels: int, spatial_dims: int = 2) -> Permutation:
    """The permutation of squeezed channels that puts the even voxels of all blocks before the odd ones.

    Between a squeeze and an unsqueeze, the first and second half of the channels are then the black and white fields
    of a checkerboard: in 2D, voxels 1 and 4 of each block of 2×2, and voxels 2 and 3.

    Args:
        channels: number of channels after the squeeze, σ·C.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: unless the channels are a multiple of σ = 2^spatial_dims.
    """
    factor = 2 ** check_spatial_dims(spatial_dims)
    if channels < 1 or channels % factor:
        raise ValueError(f"expected channels to be a multiple of {factor}, got {channels}")
    # A voxel's place k in its block has the bits of its coordinates as binary digits.
    return Permutation(channels, sorted(range(channels), key=lambda c: (c % factor).bit_count() % 2))
