"""i-RevNet: a deep classifier that loses nothing before its last layer (Jacobsen, Smeulders, Oyallon, 2018)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..invertible import AdditiveCoupling, Checkerboard, Inverse, InvertibleModule, Permutation
from ..invertible import Sequential as InvertibleSequential
from .blocks import CONVOLUTIONS, check_spatial_dims, make_norm
from .injective_padding import InjectivePadding
from .invertible_classifier import InvertibleClassifier, pooled_head


class IRevNet(InvertibleClassifier):
    """Blocks ``[x₁, x₂] ↦ [x₂, x₁ + F(x₂)]`` at ever coarser resolutions, then the mean over space, then linear.

    F is a bottleneck: three times normalisation, ReLU and 3×3 convolution, with ``1/bottleneck`` of the channels
    between (the very first block begins with its convolution). Where a stage has stride 2, its first block sends both
    halves through ψ (space-to-depth), and the first convolution of F has stride 2. Instead of exchanging the halves,
    every other block changes the first one: the same up to the order of the channels, if x₂ is the half with the image.

    The paper's networks: (a), injective, with zero channels appended at the start; (b), bijective. For CIFAR-10:
    ``num_blocks=(18, 18, 18)``, ``strides=(1, 2, 2)``, ``padded_channels=32``. For ImageNet (b):
    ``num_blocks=(6, 16, 72, 6)``, ``strides=(2, 2, 2, 2)``, ``initial_downsampling=2``.

    Args:
        in_channels: of the images.
        num_classes: of the logits.
        num_blocks: per stage.
        strides: of each stage's first block, 1 or 2.
        initial_downsampling: block side of the ψ before the first block; 1 for none.
        padded_channels: channels after appending zeros to the image, an even number; None: bijective.
        bottleneck: F's inner channels are its outer ones divided by this.
        dropout: probability inside F.
        norm: see `blocks.make_norm`.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for options outside these, or channels that cannot be halved.
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
        if initial_downsampling < 1 or bottleneck < 1:
            raise ValueError(
                f"expected initial_downsampling and bottleneck >= 1, got {initial_downsampling} and {bottleneck}"
            )
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
                        f"expected channels that can be halved, got {channels}: set padded_channels to an even number, "
                        "or initial_downsampling to 2"
                    )
                if stride > 1:
                    parts.append(Checkerboard(stride, spatial_dims=spatial_dims))
                    channels *= stride**spatial_dims
                residual = _Residual(stride, position == 0, bottleneck, dropout, norm, spatial_dims)
                # The first block reads the first half, where the image is. A half of padded zeros would give it
                # normalised zeros, which lie on the kink of the ReLU: no gradient, and a random one once rebuilt.
                parts.append(AdditiveCoupling(channels, residual, flip=position % 2 == 1))
                position += 1
        normalisation = make_norm(norm, channels, spatial_dims) or nn.Identity()
        super().__init__(padding, InvertibleSequential(*parts), pooled_head(channels, num_classes, normalisation))


def _psi(in_channels: int, channels: int, block_size: int, spatial_dims: int) -> list[InvertibleModule]:
    """Space-to-depth in the authors' order, (place in the block, channel), appended channels last.

    So a half of the channels is a half of every block in all colours; `Checkerboard` alone would part the colours.
    """
    volume = block_size**spatial_dims
    image = [c * volume + place for place in range(volume) for c in range(in_channels)]
    appended = range(in_channels * volume, channels * volume)
    return [Checkerboard(block_size, spatial_dims=spatial_dims), Permutation(channels * volume, [*image, *appended])]


class _Residual:
    """Constructs F, ``(dims_in, dims_out) -> module``."""

    def __init__(
        self, stride: int, is_first: bool, bottleneck: int, dropout: float, norm: str, spatial_dims: int
    ) -> None:
        self.stride, self.is_first, self.bottleneck = stride, is_first, bottleneck
        self.dropout, self.norm, self.spatial_dims = dropout, norm, spatial_dims

    def __call__(self, dims_in: int, dims_out: int) -> nn.Module:
        inner = max(dims_out // self.bottleneck, 1)
        layers: list[nn.Module] = []
        if self.stride > 1:
            # F reads the half as it was before ψ: undone here, which moves numbers and costs nothing else.
            layers.append(Inverse(Checkerboard(self.stride, spatial_dims=self.spatial_dims)))
            dims_in //= self.stride**self.spatial_dims
        if not self.is_first:
            layers += self._activation(dims_in)
        layers.append(self._convolution(dims_in, inner, self.stride))
        layers += self._activation(inner)
        layers.append(self._convolution(inner, inner))
        if self.dropout:
            layers.append(nn.Dropout(self.dropout))
        layers += self._activation(inner)
        layers.append(self._convolution(inner, dims_out))
        return nn.Sequential(*layers)

    def _activation(self, channels: int) -> list[nn.Module]:
        normalisation = make_norm(self.norm, channels, self.spatial_dims)
        return [*([] if normalisation is None else [normalisation]), nn.ReLU()]

    def _convolution(self, dims_in: int, dims_out: int, stride: int = 1) -> nn.Module:
        return CONVOLUTIONS[self.spatial_dims](dims_in, dims_out, 3, stride=stride, padding=1, bias=self.norm == "none")
