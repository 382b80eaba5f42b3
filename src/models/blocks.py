"""Convolution blocks: the coupling functions of the iUNet and the levels of the U-Net."""

import math
from collections.abc import Callable

from torch import Tensor, nn

from ..invertible.arguments import check_positive, check_spatial_dims, chosen, same_padding
from .convolution import Conv3d
from .fused import can_be_fused, run_fused
from .in_place import LeakyReLU
from .norms import GroupNorm, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: Conv3d}
TRANSPOSED_CONVOLUTIONS = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


_INSTANCE_NORMS = {1: InstanceNorm1d, 2: InstanceNorm2d, 3: InstanceNorm3d}
# By number of channels and spatial dimensions, with a learned scale and offset per channel.
NORMS: dict[str, Callable[[int, int], nn.Module | None]] = {
    "instance": lambda channels, spatial_dims: _INSTANCE_NORMS[spatial_dims](channels, affine=True),
    "layer": lambda channels, _: GroupNorm(1, channels),  # over all channels and voxels of a sample
    "group": lambda channels, _: GroupNorm(math.gcd(8, channels), channels),
    "batch": lambda channels, spatial_dims: BATCH_NORMS[spatial_dims](channels),
    "none": lambda channels, _: None,
}


def make_norm(norm: str, channels: int, spatial_dims: int) -> nn.Module | None:
    """The normalisation of that name in `NORMS`."""
    return chosen("norm", norm, NORMS)(channels, spatial_dims)


class ConvBlock(nn.Sequential):
    """``depth`` times convolution, normalisation, leaky ReLU. The spatial size is kept.

    (B, in_channels, *spatial) to (B, out_channels, *spatial).

    Args:
        in_channels, out_channels: the layers between have the larger of the two.
        depth: number of convolutions.
        norm: see `make_norm`.
        zero_init: start as the zero function, by a zero weight and offset in the last normalisation, or convolution if
            there is none.
        final_activation: whether a leaky ReLU follows the last convolution. Without it the output may be negative,
            and a block that starts at zero gets its full gradient.
        spatial_dims: 1, 2 or 3.
        kernel_size: odd.

    Raises:
        ValueError: for an option out of range, such as an even kernel size.

    Example:
        >>> block = ConvBlock(2, 8, spatial_dims=2, zero_init=True)
        >>> block(torch.randn(1, 2, 16, 16)).abs().max().item()
        0.0
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
        check_positive(depth=depth)
        convolution, padding = CONVOLUTIONS[check_spatial_dims(spatial_dims)], same_padding(kernel_size)
        between = max(in_channels, out_channels)
        widths = [in_channels] + [between] * (depth - 1) + [out_channels]
        for i in range(depth):
            conv = convolution(widths[i], widths[i + 1], kernel_size, padding=padding, bias=norm == "none")
            nn.init.kaiming_normal_(conv.weight, a=0.01, nonlinearity="leaky_relu")
            self.add_module(f"conv{i}", conv)
            normalisation = make_norm(norm, widths[i + 1], spatial_dims)
            if normalisation is not None:
                self.add_module(f"norm{i}", normalisation)
            if i < depth - 1 or final_activation:
                # In place: the normalisation before it does not need its output for its gradient.
                self.add_module(f"act{i}", LeakyReLU(inplace=True))
        if zero_init:
            start_at_zero(conv if normalisation is None else normalisation)

    def forward(self, x: Tensor) -> Tensor:
        return run_fused(list(self), x) if can_be_fused() else super().forward(x)


def start_at_zero(module: nn.Module) -> nn.Module:
    """The module itself, with all its parameters zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class ProjectionConv(nn.Module):
    """A linear convolution with bias between images of different channel numbers. The spatial size is kept.

    Raises:
        ValueError: for an even kernel size.
    """

    def __init__(self, in_channels: int, out_channels: int, *, spatial_dims: int, kernel_size: int = 1) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[check_spatial_dims(spatial_dims)]
        self.conv = convolution(in_channels, out_channels, kernel_size, padding=same_padding(kernel_size))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
