"""Convolution blocks: the coupling functions of the iUNet and the levels of the U-Net."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from .convolution import Conv3d
from .in_place import LeakyReLU

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: Conv3d}
TRANSPOSED_CONVOLUTIONS = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class _EmptyBatches:
    """Instance norm of a batch of no samples, which torch refuses: group norm with one channel a group is the same."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if x.shape[0]:
            return super().forward(x)  # type: ignore[misc]
        return nn.functional.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)


class InstanceNorm1d(_EmptyBatches, nn.InstanceNorm1d):
    """`torch.nn.InstanceNorm1d`, also for a batch of no samples."""


class InstanceNorm2d(_EmptyBatches, nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d`, also for a batch of no samples."""


class InstanceNorm3d(_EmptyBatches, nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d`, also for a batch of no samples."""


_INSTANCE_NORMS = {1: InstanceNorm1d, 2: InstanceNorm2d, 3: InstanceNorm3d}
NORMS = ("instance", "layer", "group", "batch", "none")


def check_spatial_dims(spatial_dims: int) -> int:
    """``spatial_dims`` itself.

    Raises:
        ValueError: unless it is 1, 2 or 3.
    """
    if spatial_dims not in (1, 2, 3):
        raise ValueError(f"expected spatial_dims to be 1, 2 or 3, got {spatial_dims}")
    return spatial_dims


def make_norm(norm: str, channels: int, spatial_dims: int) -> nn.Module | None:
    """The normalisation of that name, with learned scale and offset per channel; None for ``none``.

    ``layer`` normalises each sample over all its channels and voxels, ``group`` over groups of channels (8 groups,
    or the largest divisor of the channel number that divides 8).

    Raises:
        ValueError: for an unknown name.
    """
    if norm not in NORMS:
        raise ValueError(f"expected norm to be one of {', '.join(NORMS)}, got {norm!r}")
    if norm == "instance":
        return _INSTANCE_NORMS[spatial_dims](channels, affine=True)
    if norm == "batch":
        return _BATCH_NORMS[spatial_dims](channels)
    if norm == "none":
        return None
    return nn.GroupNorm(1 if norm == "layer" else math.gcd(8, channels), channels)


class ConvBlock(nn.Sequential):
    """``depth`` times convolution, normalisation, leaky ReLU.

    Args:
        in_channels, out_channels: channels; the layers between have the larger of the two.
        spatial_dims: 1, 2 or 3.
        depth: number of convolutions.
        kernel_size: an odd number; the spatial size is kept.
        norm: ``instance``, ``layer``, ``group``, ``batch`` or ``none``.
        zero_init: start as the zero function: the last normalisation (without one, the last convolution) starts at
            zero.
        final_activation: whether a leaky ReLU follows the last convolution too. Without it the block's values are
            not bent to positive ones, and a block that starts at zero gets its full gradient there.

    Raises:
        ValueError: for options outside these.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        spatial_dims: int,
        depth: int = 2,
        kernel_size: int = 3,
        norm: str = "layer",
        zero_init: bool = False,
        final_activation: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"expected depth >= 1, got {depth}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"expected an odd kernel_size, got {kernel_size}")
        convolution = CONVOLUTIONS[check_spatial_dims(spatial_dims)]
        between = max(in_channels, out_channels)
        widths = [in_channels] + [between] * (depth - 1) + [out_channels]
        for i in range(depth):
            conv = convolution(widths[i], widths[i + 1], kernel_size, padding=kernel_size // 2, bias=norm == "none")
            nn.init.kaiming_normal_(conv.weight, a=0.01, nonlinearity="leaky_relu")
            self.add_module(f"conv{i}", conv)
            normalisation = make_norm(norm, widths[i + 1], spatial_dims)
            if normalisation is not None:
                self.add_module(f"norm{i}", normalisation)
            if i < depth - 1 or final_activation:
                # In place: the normalisation before it does not need its output for its gradient.
                self.add_module(f"act{i}", LeakyReLU(inplace=True))
        if zero_init:
            last = conv if normalisation is None else normalisation
            for parameter in last.parameters():
                nn.init.zeros_(parameter)


class ProjectionConv(nn.Module):
    """A linear convolution with bias between images of different channel numbers, spatial size kept."""

    def __init__(self, in_channels: int, out_channels: int, *, spatial_dims: int, kernel_size: int = 1) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"expected an odd kernel_size, got {kernel_size}")
        convolution = CONVOLUTIONS[check_spatial_dims(spatial_dims)]
        self.conv = convolution(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
