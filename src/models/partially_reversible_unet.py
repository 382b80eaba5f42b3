"""A U-Net with reversible levels and irreversible down- and upsampling (Brügger, Baumgartner, Konukoglu, 2019)."""

import functools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from ..invertible import AdditiveCoupling, TwoSidedCoupling
from ..invertible import Sequential as InvertibleSequential
from ..invertible.arguments import check_channels, check_positive, check_spatial_dims
from .blocks import CONVOLUTIONS, MAX_POOLS, ProjectionConv
from .in_place import LeakyReLU
from .norms import GroupNorm
from .spatial_padding import SpatialPadding

_INTERPOLATIONS = {1: "linear", 2: "bilinear", 3: "trilinear"}


class PreActivation(nn.Sequential):
    """Group normalisation, leaky ReLU, 3×3 convolution: the functions F and G of the reversible blocks.

    Args:
        num_groups: desired groups of the normalisation; the greatest common divisor with ``in_channels`` is used.
    """

    def __init__(self, in_channels: int, out_channels: int, *, num_groups: int, spatial_dims: int) -> None:
        super().__init__(
            GroupNorm(math.gcd(num_groups, in_channels), in_channels),
            LeakyReLU(inplace=True),
            CONVOLUTIONS[spatial_dims](in_channels, out_channels, 3, padding=1, bias=False),
        )


class PartiallyReversibleUNet(nn.Module):
    """A U-Net whose levels are reversible sequences of blocks, joined by irreversible layers.

    A block is ``y₁ = x₁ + F(x₂)``, ``y₂ = x₂ + G(y₁)`` with `PreActivation` as F and G. Down: max pooling, then a 1×1
    convolution to the next level's channels. Up: a 1×1 convolution to the finer level's channels, (multi)linear
    interpolation, addition of the skip connection, a sequence. A 1×1 convolution ends the network. Gradients need
    only the states at the ends of the sequences, so memory grows with the number of levels, not of blocks.

    The defaults are those of the authors' code (one block per sequence, or two in the encoder).

    Args:
        in_channels, out_channels: of images (B, in_channels, *spatial) and results (B, out_channels, *spatial).
        channels: even numbers, one per level.
        num_encoder_blocks, num_decoder_blocks: blocks per level and side; the coarsest level has both.
        padding_mode: see `UNet`.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an option out of range, another number of channels, or a size that would need padding.

    Source: R. Brügger, C.F. Baumgartner, E. Konukoglu: A partially reversible U-Net, arXiv:1906.06148.

    Example:
        >>> net = PartiallyReversibleUNet(1, 2, channels=(4, 8), spatial_dims=2)
        >>> net(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 2, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (60, 120, 240, 360, 480),
        spatial_dims: int = 3,
        *,
        num_encoder_blocks: int = 1,
        num_decoder_blocks: int = 1,
        padding_mode: str | None = None,
    ) -> None:
        super().__init__()
        self.spatial_dims = check_spatial_dims(spatial_dims)
        if not channels or min(channels) < 2 or any(width % 2 for width in channels):
            raise ValueError(f"expected an even number of channels per level, got channels={list(channels)}")
        check_positive(num_encoder_blocks=num_encoder_blocks, num_decoder_blocks=num_decoder_blocks)
        self.in_channels = in_channels
        self.channels = list(channels)
        self.padding = SpatialPadding((2 ** (len(channels) - 1),) * spatial_dims, padding_mode)
        residual = functools.partial(PreActivation, num_groups=channels[0] // 2, spatial_dims=spatial_dims)

        def sequence(width: int, num_blocks: int) -> InvertibleSequential:
            blocks = [TwoSidedCoupling(AdditiveCoupling, width, residual) for _ in range(num_blocks)]
            return InvertibleSequential(*blocks)

        pairs = list(zip(self.channels, self.channels[1:], strict=False))
        project = functools.partial(ProjectionConv, spatial_dims=spatial_dims)
        self.lift = CONVOLUTIONS[spatial_dims](in_channels, channels[0], 3, padding=1, bias=False)
        self.encoders = nn.ModuleList(sequence(width, num_encoder_blocks) for width in self.channels)
        self.downs = nn.ModuleList(
            nn.Sequential(MAX_POOLS[spatial_dims](2), project(fine, coarse)) for fine, coarse in pairs
        )
        self.decoders = nn.ModuleList(sequence(width, num_decoder_blocks) for width in self.channels)
        interpolation = _INTERPOLATIONS[spatial_dims]
        self.ups = nn.ModuleList(
            nn.Sequential(project(coarse, fine), nn.Upsample(scale_factor=2, mode=interpolation))
            for fine, coarse in pairs
        )
        self.project = project(channels[0], out_channels)

    def forward(self, x: Tensor) -> Tensor:
        check_channels(x, self.in_channels, self.spatial_dims)
        spatial = x.shape[2:]
        x = self.encoders[0](self.lift(self.padding.pad(x)))
        skips: list[Tensor] = []
        for down, encoder in zip(self.downs, self.encoders[1:], strict=True):
            skips.append(x)
            x = encoder(down(x))
        x = self.decoders[-1](x)
        for up, decoder in zip(reversed(self.ups), reversed(self.decoders[:-1]), strict=True):
            x = decoder(skips.pop() + up(x))
        return self.padding.crop(self.project(x), spatial)
