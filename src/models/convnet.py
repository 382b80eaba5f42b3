"""The convolutional classifier that the i-ConvNet starts from, and its changes on the way to invertibility."""

from typing import Any

from torch import Tensor, nn

from ..invertible import INVERTIBLE_POOLINGS, SneakyReLU, convolve_circularly, invertible_pooling
from ..invertible.arguments import check_channels, check_choice, check_spatial_dims
from .blocks import BATCH_NORMS, CONVOLUTIONS, MAX_POOLS
from .convolution import Conv3d
from .in_place import ReLU
from .invertible_classifier import SpatialMean

CONVOLUTION_PADDINGS = ("zeros", "circular")
ACTIVATIONS = ("relu", "sneaky_relu")
DOWNSAMPLINGS = ("max", *INVERTIBLE_POOLINGS)


class _Circular(nn.Module):
    """A convolution with circular padding, whose gradient is faster than torch's."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve_circularly(input, weight, bias)


class _CircularConv1d(_Circular, nn.Conv1d): ...


class _CircularConv2d(_Circular, nn.Conv2d): ...


CIRCULAR_CONVOLUTIONS = {1: _CircularConv1d, 2: _CircularConv2d, 3: Conv3d}


class ConvNet(nn.Module):
    """Three stages of three 3×3 convolutions with downsampling between them, the mean over space, a linear layer.

    Each convolution is followed by batch normalisation and the activation. The channels are k, k, 2k in the first
    stage and 2k in all others; 4.0 million parameters for CIFAR-10 with k = 128. Table 1 of the i-ConvNet poster (Finzi
    et al., 2019) goes from "Base Convnet (4M params, 9 layers)" in three steps, each one option here: circular padding,
    `SneakyReLU`, and one of three invertible downsamplings in place of max pooling. An invertible downsampling turns
    2k channels into 8k, all of which the next convolution takes (7.5 million parameters).

    The poster says no more about the base network. This is the one of that size that the authors' code trains,
    ``layer13s`` of github.com/mfinzi/olive-oil-ml, without the biases that its batch normalisations cancel.

    Args:
        in_channels, num_classes: of images (B, in_channels, *spatial) and logits (B, num_classes).
        width: k.
        padding_mode: ``zeros`` or ``circular``.
        activation: ``relu`` or ``sneaky_relu``.
        downsampling: ``max``, ``checkerboard``, ``nearest`` (the poster's iINN) or ``average`` (iAvgPool2d), stride 2.
        slope: of the sneaky ReLU.
        dropout: probability of a zero after each downsampling.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an option out of range, another number of channels and, with an invertible downsampling, a
            spatial size that 4 does not divide.

    Example:
        >>> net = ConvNet(in_channels=1, num_classes=10, width=4, downsampling="average")
        >>> net(torch.randn(2, 1, 16, 16)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        width: int = 128,
        *,
        padding_mode: str = "zeros",
        activation: str = "relu",
        downsampling: str = "max",
        slope: float = 0.1,
        dropout: float = 0.0,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        check_choice("padding_mode", padding_mode, CONVOLUTION_PADDINGS)
        convolutions: Any = CIRCULAR_CONVOLUTIONS if padding_mode == "circular" else CONVOLUTIONS
        self.spatial_dims = check_spatial_dims(spatial_dims)
        convolution = convolutions[spatial_dims]
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("downsampling", downsampling, DOWNSAMPLINGS)
        self.in_channels = in_channels
        layers: list[nn.Module] = []
        channels = in_channels
        for stage, widths in enumerate([(width, width, 2 * width), (2 * width,) * 3, (2 * width,) * 3]):
            if stage > 0:
                pooling = MAX_POOLS[spatial_dims](2) if downsampling == "max" else None
                layers.append(pooling or invertible_pooling(downsampling, spatial_dims=spatial_dims))
                layers += [nn.Dropout(dropout)] if dropout else []
                channels *= 1 if downsampling == "max" else 2**spatial_dims
            for out_channels in widths:
                layers += [
                    convolution(channels, out_channels, 3, padding=1, padding_mode=padding_mode, bias=False),
                    BATCH_NORMS[spatial_dims](out_channels),
                    ReLU(inplace=True) if activation == "relu" else SneakyReLU(slope),
                ]
                channels = out_channels
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(SpatialMean(), nn.Linear(channels, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        check_channels(x, self.in_channels, self.spatial_dims)
        return self.head(self.features(x))
