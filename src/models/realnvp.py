"""RealNVP: affine couplings between the fields of a checkerboard and between channels (Dinh et al., 2017)."""

import functools
from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..invertible import ActNorm, GlowCoupling, Inverse, InvertibleModule, Sequential, SubnetConstructor
from ..invertible.arguments import check_positive
from .coupling_nets import ResidualNet
from .multiscale import group_by_parity, multiscale, squeezed_channels


class RealNVP(Sequential):
    """Per level, couplings with checkerboard masks, then couplings with channel masks.

    From (B, C, *spatial) to a latent of the same shape, see `multiscale`. A level has ``num_couplings`` couplings of
    each kind that change the two groups in turn. The last level has one more of the first kind and none of the second,
    as in the paper.

    A checkerboard mask before a squeeze is a channel mask after it: the fields of one colour are half of the squeezed
    channels (`group_by_parity`). So all couplings of a level work on squeezed states. The coupled groups are those of
    the paper. But a coupling's network sees blocks of 2×2 voxels as channels at a quarter of the positions, where the
    paper's sees the image with one colour blanked. One colour of a checkerboard is also what is factored out.

    The paper has batch normalisation between couplings, this network activation normalisation before each. A batch's
    statistics would make its samples' log-determinants depend on each other, and the inverse in training would need
    the statistics of a batch that it has not seen. The couplings start as the identity. For CIFAR-10, the paper has 2
    levels, 64 channels and 8 residual blocks.

    Args:
        in_channels: number of channels C.
        num_levels: number of resolutions.
        num_couplings: couplings of each kind per level.
        hidden_channels: of the couplings' networks on the first level; they double from level to level.
        num_residual_blocks, norm, skip_connections: of each network, see `ResidualNet`.
        channel_factor: the networks of couplings between channels have so many times the hidden channels of those
            between the fields of a checkerboard. The authors' have 2, and skip connections.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an option out of range, another number of channels, or a spatial size that 2^num_levels does
            not divide.

    Source: L. Dinh, J. Sohl-Dickstein, S. Bengio: Density estimation using Real NVP, arXiv:1605.08803.

    Example:
        >>> flow = RealNVP(1, num_levels=2, num_couplings=1, hidden_channels=4, num_residual_blocks=1)
        >>> z, logdet = flow.forward_and_logdet(torch.randn(2, 1, 8, 8))  # (2, 1, 8, 8), (2,)
    """

    def __init__(
        self,
        in_channels: int,
        num_levels: int = 2,
        num_couplings: int = 3,
        hidden_channels: int = 64,
        num_residual_blocks: int = 8,
        *,
        norm: str = "group",
        skip_connections: bool = False,
        channel_factor: int = 1,
        spatial_dims: int = 2,
    ) -> None:
        check_positive(num_couplings=num_couplings, channel_factor=channel_factor)
        widths = squeezed_channels(in_channels, num_levels, spatial_dims)
        levels: list[list[InvertibleModule]] = []
        for level, channels in enumerate(widths):
            on_checkerboards, between_channels = (
                functools.partial(
                    ResidualNet,
                    hidden_channels=factor * hidden_channels * 2**level,
                    num_blocks=num_residual_blocks,
                    norm=norm,
                    skip_connections=skip_connections,
                    spatial_dims=spatial_dims,
                )
                for factor in (1, channel_factor)
            )
            is_last = level == num_levels - 1
            group, ungroup, regroup = (group_by_parity(channels, spatial_dims) for _ in range(3))
            couplings = _couplings(channels, num_couplings + is_last, on_checkerboards, spatial_dims)
            steps = [group, *couplings, Inverse(ungroup)]
            if not is_last:
                steps += [*_couplings(channels, num_couplings, between_channels, spatial_dims), regroup]
            levels.append(steps)
        super().__init__(OrderedDict(levels=multiscale(levels, in_channels, spatial_dims=spatial_dims)))


def _couplings(channels: int, count: int, subnet: SubnetConstructor, spatial_dims: int) -> Iterator[InvertibleModule]:
    """Couplings that change the second half of the channels, the first, and so on, each normalised before."""
    for index in range(count):
        yield ActNorm(channels)
        bound = ScaledTanh(channels // 2, spatial_dims)
        yield GlowCoupling(channels, subnet, flip=index % 2 == 1, clamp=1.0, clamp_activation=bound)


class ScaledTanh(nn.Module):
    """``a tanh(u)`` with one learned a per channel: the bound of RealNVP's log-scales. State (B, C, *spatial)."""

    def __init__(self, channels: int, spatial_dims: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, *[1] * spatial_dims))

    def forward(self, u: Tensor) -> Tensor:
        return self.scale * u.tanh()
