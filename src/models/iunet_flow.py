"""The iUNet as a normalizing flow, which its paper leaves to future work (Etmann, Ke & Schönlieb, 2020)."""

import functools
from typing import Any

from ..invertible import GlowCoupling
from ..invertible.arguments import check_spatial_dims
from .coupling_nets import GlowNet
from .iunet import IUNet
from .iunet_layout import split_channels
from .multiscale import Squeezed


class IUNetFlow(Squeezed):
    """``unsqueeze ∘ iUNet ∘ squeeze`` with affine couplings and `ActNorm`: a flow that keeps the shape of its images.

    The paper's additive couplings preserve volume, but a density needs layers that do not. The rest is the iUNet's:
    learned orthogonal down- and upsampling, channels that wait at each level, mixing around the splits. Unlike
    in a multiscale flow, no latent leaves early: the channels that wait at a level go through its decoder, conditioned
    on the coarser levels. The squeeze (2 voxels a side) gives the first level enough channels to couple.

    The couplings start as the identity. The first batch in training mode sets the normalisations.

    Args:
        in_channels: number of channels C of the images (B, C, *spatial).
        num_levels: number of resolutions.
        num_couplings: per level and side.
        hidden_channels: of the couplings' networks, see `GlowNet`.
        split_fraction: part of a level's channels that goes to the next.
        mixing_frequency, resampling, mixing: see `IUNet`.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an option out of range, another number of channels, or a spatial size that 2^num_levels does
            not divide.

    Source: see `IUNet`; its paper leaves flows to future work.

    Example:
        >>> flow = IUNetFlow(1, num_levels=1, num_couplings=1, hidden_channels=4)
        >>> z, logdet = flow.forward_and_logdet(torch.randn(2, 1, 8, 8))  # (2, 1, 8, 8), (2,)
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
        widths = split_channels(factor * in_channels, num_levels, split_fraction, factor)
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
        # Only the iUNet's tree: a part of a larger tree has no padding of its own.
        super().__init__(in_channels, num_levels, spatial_dims, iunet=iunet.bijection)
