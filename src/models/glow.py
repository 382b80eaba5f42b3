"""Glow: a flow of activation normalisation, 1×1 convolutions and couplings (Kingma and Dhariwal, 2018)."""

from __future__ import annotations

import functools
from collections import OrderedDict

from torch import nn

from ..invertible import (
    ActNorm,
    AdditiveCoupling,
    GlowCoupling,
    InvertibleConv1x1,
    InvertibleModule,
    Permutation,
    Sequential,
)
from .coupling_nets import GlowNet, zero_convolution
from .multiscale import channels_per_level, multiscale

COUPLINGS = {"affine": GlowCoupling, "additive": AdditiveCoupling}
PERMUTATIONS = ("conv1x1", "reverse", "shuffle")


class Glow(Sequential):
    """``num_steps`` times activation normalisation, mixing of the channels and coupling, on each of several levels.

    From (B, C, *spatial) to a latent of the same shape; see `multiscale` for how levels lie in one state. At every
    split, the half z that is factored out becomes ``exp(s(h)) z + t(h)`` with a convolution [s, t] of the half h that
    goes on: a standard normal latent is then the paper's learned prior N(μ(h), σ(h)²) of z.

    All convolutions that end a coupling start at zero, so that the couplings start as the identity; the first batch in
    training mode sets the normalisations. The paper's sizes for CIFAR-10 are 3 levels, 32 steps, 512 channels.

    Args:
        in_channels: number of channels C.
        num_levels: number of resolutions; the spatial size must be divisible by 2 to their number.
        num_steps: steps per level.
        hidden_channels: channels inside the couplings' networks; see `GlowNet`.
        coupling: ``affine`` or ``additive``. Affine log-scales stay in ±2, see `AffineCoupling`.
        permutation: how a step mixes the channels: ``conv1x1``, ``reverse`` or ``shuffle`` (fixed and random).
        lu: LU factors as the parameters of the 1×1 convolutions, instead of free entries.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for options outside these, another number of channels, or a size that does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        num_levels: int = 3,
        num_steps: int = 32,
        hidden_channels: int = 512,
        *,
        coupling: str = "affine",
        permutation: str = "conv1x1",
        lu: bool = True,
        spatial_dims: int = 2,
    ) -> None:
        if num_steps < 1:
            raise ValueError(f"expected num_steps >= 1, got {num_steps}")
        if coupling not in COUPLINGS:
            raise ValueError(f"expected coupling to be one of {', '.join(COUPLINGS)}, got {coupling!r}")
        if permutation not in PERMUTATIONS:
            raise ValueError(f"expected permutation to be one of {', '.join(PERMUTATIONS)}, got {permutation!r}")
        subnet = functools.partial(GlowNet, hidden_channels=hidden_channels, spatial_dims=spatial_dims)

        def step(channels: int, index: int) -> InvertibleModule:
            mixing: InvertibleModule
            if permutation == "conv1x1":
                mixing = InvertibleConv1x1(channels, "lu" if lu else "full")
            else:
                order = list(reversed(range(channels))) if permutation == "reverse" else None
                mixing = Permutation(channels, order, seed=index)
            parts = OrderedDict(norm=ActNorm(channels), mixing=mixing, coupling=COUPLINGS[coupling](channels, subnet))
            return Sequential(parts)

        widths = channels_per_level(in_channels, num_levels, spatial_dims)
        levels = [[step(channels, index) for index in range(num_steps)] for channels in widths]
        for steps, channels in zip(levels[:-1], widths, strict=False):
            steps.append(split_prior(channels, spatial_dims))
        super().__init__(OrderedDict(levels=multiscale(levels, in_channels, spatial_dims=spatial_dims)))


def split_prior(channels: int, spatial_dims: int) -> InvertibleModule:
    """The normalisation of the first half of the channels by a mean and a scale that the second half predicts."""

    def convolution(dims_in: int, dims_out: int) -> nn.Module:
        return zero_convolution(dims_in, dims_out, 3, spatial_dims)

    return GlowCoupling(channels, convolution, flip=True)
