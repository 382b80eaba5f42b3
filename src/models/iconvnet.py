"""i-ConvNet: convolutions, activations and downsampling that invert; the classifier (Finzi et al., 2019)."""

from collections import OrderedDict
from collections.abc import Sequence

from ..invertible import ActNorm, FourierConvolution, InvertibleModule, SneakyReLU, invertible_pooling
from ..invertible import Sequential as InvertibleSequential
from ..invertible.arguments import check_spatial_dims
from .invertible_classifier import InjectivePadding, InvertibleClassifier, pooled_head


class IConvLayer(InvertibleSequential):
    """Circular convolution, `ActNorm` and `SneakyReLU`.

    Args:
        slope: of the activation; None for none.
        normalised: with `ActNorm`, whose shift serves as the bias; otherwise the convolution has one.
    """

    def __init__(
        self, channels: int, kernel_size: int, slope: float | None, spatial_dims: int, *, normalised: bool = True
    ) -> None:
        convolution = FourierConvolution(channels, kernel_size, spatial_dims=spatial_dims, bias=not normalised)
        parts: OrderedDict[str, InvertibleModule] = OrderedDict(convolution=convolution)
        if normalised:
            parts["norm"] = ActNorm(channels)
        if slope is not None:
            parts["activation"] = SneakyReLU(slope)
        super().__init__(parts)


class IConvNetClassifier(InvertibleClassifier):
    """Stages of invertible convolution layers with invertible downsampling between them, then a pooled linear head.

    This is the poster's convolutional network, with zero channels appended to the image. Every layer before the mean
    over space is a bijection. Channels grow by σ = 2^spatial_dims from stage to stage. The authors' network (``iCNN``
    of github.com/izmailovpavel/flowgmm) starts with 16 channels and has stages of 3 layers.

    A classification loss does not keep the convolutions away from singular ones, so watch the reconstruction error
    (`reconstruction_errors`). The authors add a penalty ``Σ 1/λ + λ²`` on the convolutions' singular values.

    Args:
        in_channels, num_classes: of images (B, in_channels, *spatial) and logits (B, num_classes).
        padded_channels: channels after appending zeros to the image; None appends none.
        num_layers: per stage, finest first.
        downsampling: ``checkerboard``, ``nearest`` (the poster's iINN) or ``average`` (iAvgPool2d), with stride 2.
        slope: of the `SneakyReLU`.
        norm: before the mean over space, see `make_norm`.
        kernel_size: of the convolutions.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an option out of range, another number of channels, or a size that cannot be halved between
            the stages.

    Source: M. Finzi, P. Izmailov, W. Maddox, P. Kirichenko, A.G. Wilson: Invertible convolutional networks (2019).

    Example:
        >>> net, x = IConvNetClassifier(1, 10, padded_channels=2, num_layers=(1, 1)), torch.randn(2, 1, 8, 8)
        >>> net(x).shape, net.inverse(net.encode(x)).shape
        (torch.Size([2, 10]), torch.Size([2, 1, 8, 8]))
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
        check_stages(num_layers)
        padding = InjectivePadding(in_channels, padded_channels)
        channels = padding.channels
        parts: list[InvertibleModule] = []
        for stage, count in enumerate(num_layers):
            if stage > 0:
                parts.append(invertible_pooling(downsampling, spatial_dims=spatial_dims))
                channels *= 2**spatial_dims
            parts += [IConvLayer(channels, kernel_size, slope, spatial_dims) for _ in range(count)]
        head = pooled_head(channels, num_classes, norm, spatial_dims)
        super().__init__(padding, InvertibleSequential(*parts), head)


def check_stages(num_layers: Sequence[int]) -> None:
    """Raise a `ValueError` unless there is a stage, and each has a layer."""
    if not num_layers or min(num_layers) < 1:
        raise ValueError(f"expected stages of at least one layer each, got num_layers={list(num_layers)}")
