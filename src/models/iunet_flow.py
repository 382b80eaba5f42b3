"""The iUNet as a normalizing flow, which its paper names as future work (Etmann, Ke & Schönlieb, 2020)."""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..invertible import Checkerboard, GlowCoupling, Inverse, Step
from ..invertible import Sequential as InvertibleSequential
from .blocks import check_spatial_dims
from .coupling_nets import GlowNet
from .iunet import IUNet


class IUNetFlow(InvertibleSequential):
    """``unsqueeze ∘ iUNet ∘ squeeze`` with affine couplings and `ActNorm`: a flow from images to latents of one shape.

    The paper's additive couplings preserve volume; a density needs layers that do not. Everything else is the iUNet's:
    learned orthogonal down- and upsampling, channels that wait at each level, mixing around the splits. Unlike
    a multiscale flow, no latent leaves early: what waits at a level goes through that level's decoder, conditioned on
    the coarser ones. The squeeze (2 voxels a side) gives the first level enough channels to couple.

    The couplings start as the identity; the first batch in training mode sets the normalisations.

    Args:
        in_channels: number of channels C of the images.
        num_levels: levels of the iUNet; the spatial size must be divisible by 2 to their number.
        num_couplings: couplings per level and side.
        hidden_channels: channels inside the couplings' networks, see `GlowNet`.
        split_fraction: part of a level's channels that goes to the next.
        mixing_frequency, resampling, mixing: see `IUNet`.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for options outside these, another number of channels, or a size that does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        num_levels: int = 3,
        num_couplings: int = 4,
        hidden_channels: int = 64,
        *,
        split_fraction: float = 0.5,
        mixing_frequency: int = 1,
        resampling: dict[str, Any] | None = None,
        mixing: dict[str, Any] | None = None,
        spatial_dims: int = 2,
    ) -> None:
        factor = 2 ** check_spatial_dims(spatial_dims)
        if not 0 < split_fraction < 1:
            raise ValueError(f"expected a split_fraction between 0 and 1, got {split_fraction}")
        widths = channels_per_level(factor * in_channels, num_levels, split_fraction, factor)
        iunet = IUNet(
            widths,
            num_couplings,
            spatial_dims,
            subnet=functools.partial(GlowNet, hidden_channels=hidden_channels, spatial_dims=spatial_dims),
            coupling=GlowCoupling,
            actnorm=True,
            resampling=resampling,
            mixing_frequency=mixing_frequency,
            mixing=mixing,
        )
        squeeze = Checkerboard(2, spatial_dims=spatial_dims)
        # The iUNet's tree itself: as a part of a larger one it has no padding of its own.
        super().__init__(OrderedDict(squeeze=squeeze, iunet=iunet.bijection, unsqueeze=Inverse(squeeze)))
        self.in_channels = in_channels
        self.divisor = 2**num_levels

    def run(self, x: Tensor, step: Step) -> Tensor:
        if x.shape[1] != self.in_channels or any(size % self.divisor for size in x.shape[2:]):
            raise ValueError(
                f"expected {self.in_channels} channels and a spatial size divisible by {self.divisor}, "
                f"got shape {tuple(x.shape)}"
            )
        return super().run(x, step)


def channels_per_level(first: int, num_levels: int, split_fraction: float, factor: int) -> Sequence[int]:
    """Channels of each level: a split-off part of the one above, times the ``factor`` that downsampling multiplies by.

    Raises:
        ValueError: without a level, or where a level has only one channel, which cannot be split.
    """
    if num_levels < 1:
        raise ValueError(f"expected num_levels >= 1, got {num_levels}")
    channels = [first]
    for _ in range(num_levels - 1):
        if channels[-1] < 2:
            raise ValueError(f"expected at least 2 channels to split, got {channels[-1]} on level {len(channels)}")
        split_off = min(max(math.floor(split_fraction * channels[-1]), 1), channels[-1] - 1)
        channels.append(factor * split_off)
    return channels
