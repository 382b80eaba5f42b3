"""i-RevNet: a deep classifier that loses no information before its last layer (Jacobsen, Smeulders, Oyallon, 2018)."""

from collections.abc import Sequence

from torch import nn

from ..invertible import AdditiveCoupling, Checkerboard, Inverse, InvertibleModule, Permutation, SubnetConstructor
from ..invertible import Sequential as InvertibleSequential
from ..invertible.arguments import check_positive, check_spatial_dims
from .blocks import CONVOLUTIONS, make_norm
from .invertible_classifier import InjectivePadding, InvertibleClassifier, pooled_head


class IRevNet(InvertibleClassifier):
    """Blocks ``[x₁, x₂] ↦ [x₂, x₁ + F(x₂)]`` at ever coarser resolutions, then the mean over space, then linear.

    F is a bottleneck: three times normalisation, ReLU and 3×3 convolution, with ``1/bottleneck`` of the channels
    inside (the very first block begins with its convolution). In a stage with stride 2, the first block sends both
    halves through ψ (space-to-depth), and the first convolution of F has stride 2. Instead of exchanging the halves,
    every other block changes the first one. This is the same up to the order of the channels.

    The paper has an injective network (a), with zero channels appended to the image, and a bijective one (b). CIFAR-10:
    ``num_blocks=(18, 18, 18)``, ``strides=(1, 2, 2)``, ``padded_channels=32``. ImageNet (b):
    ``num_blocks=(6, 16, 72, 6)``, ``strides=(2, 2, 2, 2)``, ``initial_downsampling=2``.

    Args:
        in_channels, num_classes: of images (B, in_channels, *spatial) and logits (B, num_classes).
        num_blocks: per stage.
        strides: of each stage's first block, 1 or 2.
        initial_downsampling: block side of a ψ before the first block; 1 for none.
        padded_channels: channels after appending zeros to the image, an even number; None appends none.
        bottleneck: outer channels of F divided by its inner ones.
        dropout: probability, inside F.
        norm: see `make_norm`.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an option out of range, or channels that cannot be halved.

    Source: J.-H. Jacobsen, A. Smeulders, E. Oyallon: i-RevNet: deep invertible networks, arXiv:1802.07088.

    Example:
        >>> net = IRevNet(1, 10, num_blocks=(1, 1), strides=(1, 2), padded_channels=4)
        >>> net(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_blocks: Sequence[int] = (18, 18, 18),
        strides: Sequence[int] = (1, 2, 2),
        *,
        initial_downsampling: int = 1,
        padded_channels: int | None = None,
        bottleneck: int = 4,
        dropout: float = 0.0,
        norm: str = "batch",
        spatial_dims: int = 2,
    ) -> None:
        check_spatial_dims(spatial_dims)
        if len(num_blocks) != len(strides) or not num_blocks or min(num_blocks) < 1:
            raise ValueError(
                f"expected one stride per stage and positive num_blocks, got {list(num_blocks)} and {list(strides)}"
            )
        if not set(strides) <= {1, 2}:
            raise ValueError(f"expected strides of 1 or 2, got {list(strides)}")
        check_positive(initial_downsampling=initial_downsampling, bottleneck=bottleneck)
        padding = InjectivePadding(in_channels, padded_channels)
        channels = padding.channels * initial_downsampling**spatial_dims
        parts: list[InvertibleModule] = []
        if initial_downsampling > 1:
            parts += _psi(in_channels, padding.channels, initial_downsampling, spatial_dims)
        position = 0
        for count, stage_stride in zip(num_blocks, strides, strict=True):
            for i in range(count):
                stride = stage_stride if i == 0 else 1
                if channels % 2:
                    raise ValueError(
                        f"expected an even number of channels, got {channels}: set padded_channels to an even number "
                        "or initial_downsampling to 2"
                    )
                if stride > 1:
                    parts.append(Checkerboard(stride, spatial_dims=spatial_dims))
                    channels *= stride**spatial_dims
                residual = _residual(stride, position == 0, bottleneck, dropout, norm, spatial_dims)
                # The first block reads the first half, where the image is. A half of padded zeros would give it
                # normalised zeros, which lie on the kink of the ReLU: no gradient, and a random one once rebuilt.
                parts.append(AdditiveCoupling(channels, residual, flip=position % 2 == 1))
                position += 1
        head = pooled_head(channels, num_classes, norm, spatial_dims)
        super().__init__(padding, InvertibleSequential(*parts), head)


def _psi(in_channels: int, channels: int, block_size: int, spatial_dims: int) -> list[InvertibleModule]:
    """Space-to-depth in the authors' order, (place in the block, channel), appended channels last.

    Half of the channels are then half of every block in all colours. `Checkerboard` alone would separate the colours.
    """
    volume = block_size**spatial_dims
    image = [c * volume + place for place in range(volume) for c in range(in_channels)]
    appended = range(in_channels * volume, channels * volume)
    return [Checkerboard(block_size, spatial_dims=spatial_dims), Permutation(channels * volume, [*image, *appended])]


def _residual(
    stride: int, is_first: bool, bottleneck: int, dropout: float, norm: str, spatial_dims: int
) -> SubnetConstructor:
    """Constructor of F, for a half of the channels that ψ has changed by the stride."""

    def activation(channels: int) -> list[nn.Module]:
        return [layer for layer in (make_norm(norm, channels, spatial_dims), nn.ReLU()) if layer is not None]

    def convolution(dims_in: int, dims_out: int, stride: int = 1) -> nn.Module:
        return CONVOLUTIONS[spatial_dims](dims_in, dims_out, 3, stride=stride, padding=1, bias=norm == "none")

    def construct(dims_in: int, dims_out: int) -> nn.Module:
        inner = max(dims_out // bottleneck, 1)
        layers: list[nn.Module] = []
        if stride > 1:
            # F reads the half as it was before ψ: undone here, which moves numbers and costs nothing else.
            layers.append(Inverse(Checkerboard(stride, spatial_dims=spatial_dims)))
            dims_in //= stride**spatial_dims
        if not is_first:
            layers += activation(dims_in)
        layers += [convolution(dims_in, inner, stride), *activation(inner), convolution(inner, inner)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        return nn.Sequential(*layers, *activation(inner), convolution(inner, dims_out))

    return construct
