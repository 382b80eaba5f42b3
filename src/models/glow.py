"""Glow: a flow of activation normalisation, 1×1 convolutions and couplings (Kingma and Dhariwal, 2018)."""

import functools
from collections import OrderedDict
from collections.abc import Callable

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
from ..invertible.arguments import check_positive, chosen
from .coupling_nets import GlowNet, zero_convolution
from .multiscale import multiscale, squeezed_channels

COUPLINGS = {"affine": GlowCoupling, "additive": AdditiveCoupling}
# By the number of channels, the index of the step, and whether a 1×1 convolution has LU factors.
PERMUTATIONS: dict[str, Callable[[int, int, bool], InvertibleModule]] = {
    "conv1x1": lambda channels, _, lu: InvertibleConv1x1(channels, "lu" if lu else "full"),
    "reverse": lambda channels, *_: Permutation(channels, list(reversed(range(channels)))),
    "shuffle": lambda channels, index, _: Permutation(channels, seed=index),
}


class Glow(Sequential):
    """``num_steps`` times activation normalisation, mixing of the channels and coupling, on each of several levels.

    From (B, C, *spatial) to a latent of the same shape, see `multiscale`. At every split, the half z that is factored
    out becomes ``exp(s(h)) z + t(h)`` with a convolution [s, t] of the half h that goes on. A standard normal latent
    is then the paper's learned prior N(μ(h), σ(h)²) of z.

    The last convolution of each coupling starts at zero, so that the couplings start as the identity. The first batch
    in training mode sets the normalisations. For CIFAR-10, the paper has the default sizes.

    Args:
        in_channels: number of channels C.
        num_levels: number of resolutions.
        num_steps: per level.
        hidden_channels: of the couplings' networks, see `GlowNet`.
        coupling: ``affine`` or ``additive``. Affine log-scales stay in ±2, see `AffineCoupling`.
        permutation: how a step mixes the channels: ``conv1x1``, ``reverse`` or ``shuffle`` (fixed and random).
        lu: LU factors as the parameters of the 1×1 convolutions, instead of free entries.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an option out of range, another number of channels, or a spatial size that 2^num_levels does
            not divide.

    Source: D.P. Kingma, P. Dhariwal: Glow: generative flow with invertible 1×1 convolutions, arXiv:1807.03039.

    Example:
        >>> flow, x = Glow(1, num_levels=2, num_steps=1, hidden_channels=4), torch.randn(2, 1, 8, 8)
        >>> z, logdet = flow.forward_and_logdet(x)  # (2, 1, 8, 8), (2,)
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
        check_positive(num_steps=num_steps)
        make_coupling = chosen("coupling", coupling, COUPLINGS)
        make_mixing = chosen("permutation", permutation, PERMUTATIONS)
        subnet = functools.partial(GlowNet, hidden_channels=hidden_channels, spatial_dims=spatial_dims)

        def step(channels: int, index: int) -> InvertibleModule:
            mixing = make_mixing(channels, index, lu)
            return Sequential(
                OrderedDict(norm=ActNorm(channels), mixing=mixing, coupling=make_coupling(channels, subnet))
            )

        widths = squeezed_channels(in_channels, num_levels, spatial_dims)
        levels = [[step(channels, index) for index in range(num_steps)] for channels in widths]
        for steps, channels in zip(levels[:-1], widths, strict=False):
            steps.append(split_prior(channels, spatial_dims))
        super().__init__(OrderedDict(levels=multiscale(levels, in_channels, spatial_dims=spatial_dims)))


def split_prior(channels: int, spatial_dims: int) -> InvertibleModule:
    """The normalisation of the first half of the channels by a mean and a scale that the second half predicts."""

    def convolution(dims_in: int, dims_out: int) -> nn.Module:
        return zero_convolution(dims_in, dims_out, 3, spatial_dims)

    return GlowCoupling(channels, convolution, flip=True)
