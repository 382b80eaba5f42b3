"""The classic U-Net, in one to three dimensions."""

import torch
from torch import Tensor, nn

from ..invertible.arguments import check_channels, check_spatial_dims
from .blocks import MAX_POOLS, TRANSPOSED_CONVOLUTIONS, ConvBlock, ProjectionConv
from .iunet_layout import doubled_channels
from .spatial_padding import SpatialPadding


class UNet(nn.Module):
    """Classic U-Net (Ronneberger et al., 2015; Çiçek et al., 2016).

    Two convolutions per level before downsampling by max pooling, and two after upsampling by a transposed
    convolution and concatenation; the channels double from level to level; a linear convolution at the end.

    Args:
        in_channels, out_channels: of images (B, in_channels, *spatial) and results (B, out_channels, *spatial).
        base_channels: of the first level ("channel blowup" in the iUNet paper).
        num_levels: number of resolutions.
        norm: see `make_norm`.
        padding_mode: how to pad sizes that 2^(num_levels − 1) does not divide, see `SpatialPadding`; the padding is
            removed from the output.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an option out of range, another number of channels, or a size that would need padding.

    Example:
        >>> net = UNet(1, 2, base_channels=4, num_levels=2, spatial_dims=2)
        >>> net(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 2, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        base_channels: int,
        num_levels: int,
        spatial_dims: int,
        *,
        norm: str = "layer",
        padding_mode: str | None = None,
    ) -> None:
        super().__init__()
        self.spatial_dims = check_spatial_dims(spatial_dims)
        self.in_channels, self.channels = in_channels, doubled_channels(base_channels, num_levels)
        self.padding = SpatialPadding((2 ** (num_levels - 1),) * spatial_dims, padding_mode)

        def block(channels_in: int, channels_out: int) -> ConvBlock:
            return ConvBlock(channels_in, channels_out, spatial_dims=spatial_dims, norm=norm, final_activation=True)

        pairs = list(zip(self.channels, self.channels[1:], strict=False))
        self.encoders = nn.ModuleList(
            block(a, b) for a, b in zip([in_channels, *self.channels[:-1]], self.channels, strict=True)
        )
        self.downs = nn.ModuleList(MAX_POOLS[spatial_dims](2) for _ in pairs)
        self.ups = nn.ModuleList(
            TRANSPOSED_CONVOLUTIONS[spatial_dims](coarse, fine, 2, stride=2) for fine, coarse in pairs
        )
        self.decoders = nn.ModuleList(block(2 * fine, fine) for fine, _ in pairs)
        self.project = ProjectionConv(base_channels, out_channels, spatial_dims=spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        check_channels(x, self.in_channels, self.spatial_dims)
        spatial = x.shape[2:]
        x = self.encoders[0](self.padding.pad(x))
        skips: list[Tensor] = []
        for down, encoder in zip(self.downs, self.encoders[1:], strict=True):
            skips.append(x)
            x = encoder(down(x))
        for up, decoder in zip(reversed(self.ups), reversed(self.decoders), strict=True):
            x = decoder(torch.cat((skips.pop(), up(x)), dim=1))
        return self.padding.crop(self.project(x), spatial)
