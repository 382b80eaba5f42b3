"""The convolutional classifier that the i-ConvNet starts from, and its changes on the way to invertibility."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..invertible import INVERTIBLE_POOLINGS, SneakyReLU, invertible_pooling
from .blocks import CONVOLUTIONS, MAX_POOLS, check_spatial_dims, make_norm
from .in_place import ReLU
from .invertible_classifier import SpatialMean

PADDING_MODES = ("zeros", "circular")
ACTIVATIONS = ("relu", "sneaky_relu")
DOWNSAMPLINGS = ("max", *INVERTIBLE_POOLINGS)


class ConvNet(nn.Module):
    """Three stages of three 3×3 convolutions, downsampling between them, the mean over space, a linear layer.

    Each convolution is followed by batch normalisation and the activation. The channels are k, k, 2k in the first
    stage and 2k in all others; 4.0 million parameters for CIFAR-10 with k = 128. Table 1 of the i-ConvNet poster (Finzi
    et al., 2019) goes from "Base Convnet (4M params, 9 layers)" in three steps, each one option here: circular padding,
    `SneakyReLU`, and an invertible downsampling in place of max pooling, of which it tries three. An invertible
    downsampling turns 2k into 8k channels, and the next convolution takes them (7.5 million parameters).

    The poster does not say more of the base. This is the network of that size that the authors' code trains,
    ``layer13s`` of github.com/mfinzi/olive-oil-ml, without the biases that its batch normalisations cancel.

    Args:
        in_channels: of the images.
        num_classes: of the logits.
        width: k.
        padding_mode: ``zeros`` or ``circular``.
        activation: ``relu`` or ``sneaky_relu``.
        downsampling: ``max``, ``checkerboard``, ``nearest`` (the poster's iINN) or ``average`` (iAvgPool2d), stride 2.
        slope: of the sneaky ReLU.
        dropout: probability of a zero behind each downsampling.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for options outside these; for other images than (B, in_channels, *spatial) and, with an invertible
            downsampling, a spatial size that is not divisible by 4.
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
        check_spatial_dims(spatial_dims)
        for name, value, known in (
            ("padding_mode", padding_mode, PADDING_MODES),
            ("activation", activation, ACTIVATIONS),
            ("downsampling", downsampling, DOWNSAMPLINGS),
        ):
            if value not in known:
                raise ValueError(f"expected {name} to be one of {', '.join(known)}, got {value!r}")
        self.in_channels = in_channels
        layers: list[nn.Module] = []
        channels = in_channels
        for stage, widths in enumerate([(width, width, 2 * width), (2 * width,) * 3, (2 * width,) * 3]):
            if stage > 0:
                layers.append(_downsampling(downsampling, spatial_dims))
                layers += [nn.Dropout(dropout)] if dropout else []
                channels *= 1 if downsampling == "max" else 2**spatial_dims
            for out_channels in widths:
                layers += _convolution(channels, out_channels, padding_mode, spatial_dims)
                layers.append(ReLU(inplace=True) if activation == "relu" else SneakyReLU(slope))
                channels = out_channels
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(SpatialMean(), nn.Linear(channels, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.in_channels:
            raise ValueError(f"expected images with {self.in_channels} channels, got {x.shape[1]}")
        return self.head(self.features(x))


def _convolution(in_channels: int, out_channels: int, padding_mode: Any, spatial_dims: int) -> list[nn.Module]:
    norm = make_norm("batch", out_channels, spatial_dims)
    assert norm is not None
    convolution = CONVOLUTIONS[spatial_dims]
    return [convolution(in_channels, out_channels, 3, padding=1, padding_mode=padding_mode, bias=False), norm]


def _downsampling(name: str, spatial_dims: int) -> nn.Module:
    return MAX_POOLS[spatial_dims](2) if name == "max" else invertible_pooling(name, spatial_dims=spatial_dims)
