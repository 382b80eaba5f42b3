"""A U-Net with reversible levels, and down- and upsampling that is not (Brügger, Baumgartner, Konukoglu, 2019)."""

from __future__ import annotations

import functools

from torch import Tensor, nn

from src.invertible.coupling import AdditiveCoupling, TwoSidedCoupling
from src.invertible.module import Sequential as InvertibleSequential

from .blocks import MAX_POOLS, ConvBlock, ProjectionConv, check_spatial_dims
from .padding import Padding

_INTERPOLATIONS = {1: "linear", 2: "bilinear", 3: "trilinear"}


class PartiallyReversibleUNet(nn.Module):
    """Reversible sequences on every level of a U-Net, joined by layers that are not reversible.

    A block of a sequence is ``y₁ = x₁ + F(x₂)``, ``y₂ = x₂ + G(y₁)`` with convolution, normalisation, leaky ReLU as F
    and G. Down: max pooling, then a 1×1 convolution to twice the channels. Up: a 1×1 convolution to half of the
    channels, then (multi)linear interpolation; the skip connection is added. Gradients need what lies at the ends of
    the sequences only, so the memory grows with the number of levels and not with ``num_couplings``.

    The authors' code differs in this: F and G normalise and activate before they convolve, the first convolution is
    3×3, the coarsest level has a second sequence, and the channels are 60, 120, 240, 360, 480.

    Args:
        in_channels, out_channels: channels of the images.
        base_channels: channels of the first level, an even number.
        num_levels: number of resolutions.
        spatial_dims: 1, 2 or 3.
        num_couplings: blocks per level and side.
        norm: see `ConvBlock`; the paper has group normalisation.
        padding_mode: padding for sizes not divisible by ``2^(num_levels-1)``, None to refuse them; it is cut off again.

    Raises:
        ValueError: for options outside these, another number of channels, or a size that does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        base_channels: int,
        num_levels: int,
        spatial_dims: int,
        *,
        num_couplings: int = 1,
        norm: str = "group",
        padding_mode: str | None = None,
    ) -> None:
        super().__init__()
        check_spatial_dims(spatial_dims)
        if num_levels < 1 or num_couplings < 1:
            raise ValueError(f"expected num_levels >= 1 and num_couplings >= 1, got {num_levels} and {num_couplings}")
        if base_channels < 2 or base_channels % 2:
            raise ValueError(f"expected an even number of base_channels, got {base_channels}")
        self.in_channels = in_channels
        self.padding = Padding((2 ** (num_levels - 1),) * spatial_dims, padding_mode)
        self.channels = [base_channels * 2**level for level in range(num_levels)]
        residual = functools.partial(ConvBlock, spatial_dims=spatial_dims, depth=1, norm=norm, final_activation=True)

        def sequence(channels: int) -> InvertibleSequential:
            blocks = [TwoSidedCoupling(AdditiveCoupling, channels, residual) for _ in range(num_couplings)]
            return InvertibleSequential(*blocks)

        pairs = list(zip(self.channels, self.channels[1:], strict=False))
        project = functools.partial(ProjectionConv, spatial_dims=spatial_dims)
        self.lift = project(in_channels, base_channels)
        self.encoders = nn.ModuleList(sequence(channels) for channels in self.channels)
        self.downs = nn.ModuleList(
            nn.Sequential(MAX_POOLS[spatial_dims](2), project(fine, coarse)) for fine, coarse in pairs
        )
        interpolation = _INTERPOLATIONS[spatial_dims]
        self.ups = nn.ModuleList(
            nn.Sequential(project(coarse, fine), nn.Upsample(scale_factor=2, mode=interpolation))
            for fine, coarse in pairs
        )
        self.decoders = nn.ModuleList(sequence(fine) for fine, _ in pairs)
        self.project = project(base_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.in_channels:
            raise ValueError(f"expected images with {self.in_channels} channels, got {x.shape[1]}")
        spatial = x.shape[2:]
        x = self.encoders[0](self.lift(self.padding.pad(x)))
        skips: list[Tensor] = []
        for down, encoder in zip(self.downs, self.encoders[1:], strict=True):
            skips.append(x)
            x = encoder(down(x))
        for up, decoder in zip(reversed(self.ups), reversed(self.decoders), strict=True):
            x = decoder(skips.pop() + up(x))
        return self.padding.crop(self.project(x), spatial)
