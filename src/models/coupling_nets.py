"""The convolutional networks inside the couplings of Glow and RealNVP. Both start as the zero function."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from ..invertible.arguments import check_positive, check_spatial_dims
from .blocks import CONVOLUTIONS, make_norm, start_at_zero
from .in_place import ReLU


class GlowNet(nn.Sequential):
    """3×3, 1×1 and 3×3 convolutions with ReLU between them (Kingma and Dhariwal, 2018, section 3.3).

    The last convolution starts at zero. The paper has 512 hidden channels.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden_channels: int, *, spatial_dims: int = 2) -> None:
        check_positive(hidden_channels=hidden_channels)
        convolution = CONVOLUTIONS[check_spatial_dims(spatial_dims)]
        super().__init__(
            OrderedDict(
                conv0=convolution(in_channels, hidden_channels, 3, padding=1),
                act0=ReLU(inplace=True),
                conv1=convolution(hidden_channels, hidden_channels, 1),
                act1=ReLU(inplace=True),
                conv2=zero_convolution(hidden_channels, out_channels, 3, spatial_dims),
            )
        )


class ResidualNet(nn.Module):
    """A 3×3 convolution, residual blocks, and a 1×1 convolution that starts at zero (Dinh et al., 2017, section 4.1).

    A block is ``h + conv(relu(norm(conv(relu(norm(h))))))`` with 3×3 convolutions. The paper normalises by the batch's
    statistics. Here each sample is normalised by itself, so that a batch of one works and a sample's log-determinant
    does not depend on the others.

    Args:
        hidden_channels: the paper has 64 for CIFAR-10, 32 otherwise.
        num_blocks: number of residual blocks; the paper has 8 for CIFAR-10, 4 otherwise.
        norm: see `make_norm`.
        skip_connections: the last convolution gets the sum of 1×1 convolutions of the input of the first block and of
            the output of each, as in the paper; otherwise the output of the last block.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        num_blocks: int,
        *,
        norm: str = "group",
        skip_connections: bool = False,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        check_positive(hidden_channels=hidden_channels)
        if num_blocks < 0:
            raise ValueError(f"expected num_residual_blocks >= 0, got {num_blocks}")
        convolution = CONVOLUTIONS[check_spatial_dims(spatial_dims)]

        def activated_convolution() -> list[nn.Module]:
            normalisation = make_norm(norm, hidden_channels, spatial_dims) or nn.Identity()
            return [normalisation, nn.ReLU(), convolution(hidden_channels, hidden_channels, 3, padding=1)]

        self.first = convolution(in_channels, hidden_channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(*activated_convolution(), *activated_convolution()) for _ in range(num_blocks)
        )
        count = num_blocks + 1 if skip_connections else 0
        self.skips = nn.ModuleList(convolution(hidden_channels, hidden_channels, 1) for _ in range(count))
        self.norm = make_norm(norm, hidden_channels, spatial_dims) or nn.Identity()
        self.last = zero_convolution(hidden_channels, out_channels, 1, spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        states = [self.first(x)]
        for block in self.blocks:
            states.append(states[-1] + block(states[-1]))
        if not self.skips:
            return self.last(self.norm(states[-1]).relu())
        skipped = [skip(h) for skip, h in zip(self.skips, states, strict=True)]
        return self.last(self.norm(torch.stack(skipped).sum(0)).relu())


def zero_convolution(in_channels: int, out_channels: int, kernel_size: int, spatial_dims: int) -> nn.Module:
    """A convolution with bias that keeps the spatial size and starts at zero."""
    return start_at_zero(CONVOLUTIONS[spatial_dims](in_channels, out_channels, kernel_size, padding=kernel_size // 2))
