"""i-ConvNet: convolutions, activations and downsampling that invert; a classifier and a flow (Finzi et al., 2019)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from ..invertible import ActNorm, FourierConvolution, InvertibleModule, SneakyReLU, invertible_pooling
from ..invertible import Sequential as InvertibleSequential
from .blocks import check_spatial_dims, make_norm
from .injective_padding import InjectivePadding
from .invertible_classifier import InvertibleClassifier, pooled_head


class IConvLayer(InvertibleSequential):
    """Circular convolution, `ActNorm` and, unless ``slope`` is None, `SneakyReLU`; the shift serves as the bias."""

    def __init__(self, channels: int, kernel_size: int, slope: float | None, spatial_dims: int) -> None:
        convolution = FourierConvolution(channels, kernel_size, spatial_dims=spatial_dims, bias=False)
        parts: OrderedDict[str, InvertibleModule] = OrderedDict(convolution=convolution, norm=ActNorm(channels))
        if slope is not None:
            parts["activation"] = SneakyReLU(slope)
        super().__init__(parts)


class IConvNetClassifier(InvertibleClassifier):
    """Stages of invertible convolution layers with invertible downsampling between them, then a pooled linear head.

    With zero channels appended to the image, the poster's convolutional network in which every layer is a bijection;
    the mean over space is the first that is not. Channels grow by σ = 2^spatial_dims from stage to stage. The authors'
    network (``iCNN`` of github.com/izmailovpavel/flowgmm) has 16 channels at first, and stages of 3 layers.

    Nothing in a classification loss keeps the convolutions away from singular ones, so watch the error of the
    reconstruction (``callbacks=guard``); the authors add a penalty ``Σ 1/λ + λ²`` on the convolutions' singular values.

    Args:
        in_channels: of the images.
        num_classes: of the logits.
        padded_channels: channels after appending zeros to the image; None for none.
        num_layers: per stage, finest first.
        kernel_size: of all convolutions.
        downsampling: ``checkerboard``, ``nearest`` (the poster's iINN) or ``average`` (iAvgPool2d), with stride 2.
        slope: of the `SneakyReLU`.
        norm: before the mean over space, see `blocks.make_norm`.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for options outside these, another number of channels, or a spatial size that is not divisible by 2
            to the number of downsamplings.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        padded_channels: int | None = 16,
        num_layers: Sequence[int] = (3, 3, 3),
        *,
        kernel_size: int = 3,
        downsampling: str = "average",
        slope: float = 0.1,
        norm: str = "batch",
        spatial_dims: int = 2,
    ) -> None:
        check_spatial_dims(spatial_dims)
        if not num_layers or min(num_layers) < 1:
            raise ValueError(f"expected at least one stage, of at least one layer, got num_layers={list(num_layers)}")
        padding = InjectivePadding(in_channels, padded_channels)
        channels = padding.channels
        parts: list[InvertibleModule] = []
        for stage, count in enumerate(num_layers):
            if stage > 0:
                parts.append(invertible_pooling(downsampling, spatial_dims=spatial_dims))
                channels *= 2**spatial_dims
            parts += [IConvLayer(channels, kernel_size, slope, spatial_dims) for _ in range(count)]
        normalisation = make_norm(norm, channels, spatial_dims) or nn.Identity()
        super().__init__(padding, InvertibleSequential(*parts), pooled_head(channels, num_classes, normalisation))
