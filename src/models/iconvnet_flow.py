"""The fully convolutional normalizing flow of the i-ConvNet poster (Finzi et al., 2019)."""

from __future__ import annotations

from collections import OrderedDict

from ..invertible import Sequential as InvertibleSequential
from .blocks import check_spatial_dims
from .iconvnet import IConvLayer
from .multiscale import channels_per_level, multiscale


class IConvNetFlow(InvertibleSequential):
    """``num_layers`` circular convolutions with activation normalisation and `SneakyReLU`, on each of several levels.

    ``log|det Df| = Σ_i (log|det Conv_i| + Σ log σ'(a_i))`` and the normalisations' part: no coupling, every layer
    changes all channels. From (B, C, *spatial) to a latent of the same shape, by `multiscale`: space-to-depth before a
    level's layers, half of the channels done after them. The last layer of a level has no activation, so that latents
    are not bent. The likelihood keeps the convolutions invertible: near a singular one its log-determinant falls.

    Args:
        in_channels: number of channels C.
        num_levels: number of resolutions; the spatial size must be divisible by 2 to their number.
        num_layers: convolutions per level.
        kernel_size: of the convolutions.
        slope: of the activations at −∞.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for options outside these, another number of channels, or a size that does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        num_levels: int = 3,
        num_layers: int = 8,
        *,
        kernel_size: int = 3,
        slope: float = 0.1,
        spatial_dims: int = 2,
    ) -> None:
        check_spatial_dims(spatial_dims)
        if num_layers < 1:
            raise ValueError(f"expected num_layers >= 1, got {num_layers}")
        levels = [
            [
                IConvLayer(channels, kernel_size, slope if i < num_layers - 1 else None, spatial_dims)
                for i in range(num_layers)
            ]
            for channels in channels_per_level(in_channels, num_levels, spatial_dims)
        ]
        super().__init__(OrderedDict(levels=multiscale(levels, in_channels, spatial_dims=spatial_dims)))
