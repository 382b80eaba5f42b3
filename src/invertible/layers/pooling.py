"""Fixed invertible downsamplings: pooling that keeps what it would discard as additional channels.

They stand for max pooling in Table 1 of the i-ConvNet poster (Finzi et al., 2019), which names them without defining
them; the definitions are those of the authors' code (flow_ssl/invertible/downsample.py of
github.com/izmailovpavel/flowgmm), for any stride in 1 to 3 dimensions. The learned one is `Downsampling`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import check_real, chosen, per_dimension
from ..log_determinants import constant_logdet
from ..module import InvertibleModule
from .space_to_depth import from_blocks, to_blocks


class BlockDownsampling(InvertibleModule):
    """The same bijection of σ numbers in every block: (B, C, N₁, …) → (B, σC, N₁/s₁, …).

    Channel c becomes the channels cσ … cσ+σ−1, as in `Downsampling`. Upsampling is ``Inverse(...)``.

    Args:
        stride: side lengths of a block, s₁ … s_d; σ is their product.

    Raises:
        ValueError: for a state whose spatial size is not divisible by the stride, or, in the inverse, one whose number
            of channels is not divisible by σ.
    """

    def __init__(self, stride: int | Sequence[int] = 2, *, spatial_dims: int) -> None:
        super().__init__()
        self.stride = per_dimension(stride, spatial_dims, "stride")
        self.block_volume = math.prod(self.stride)

    def pool(self, blocks: Tensor) -> Tensor:
        """What blocks (B, C, σ, *coarse) become; by default, they stay as they are."""
        return blocks

    def unpool(self, pooled: Tensor) -> Tensor:
        """The inverse of `pool`."""
        return pooled

    def block_logdet(self) -> float:
        """``log|det|`` of `pool` on one block."""
        return 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(to_blocks(x, self.stride)).flatten(1, 2)

    def inverse(self, y: Tensor) -> Tensor:
        if y.ndim != 2 + len(self.stride) or y.shape[1] % self.block_volume:
            raise ValueError(
                f"expected a state with {len(self.stride)} spatial sizes and channels divisible by "
                f"{self.block_volume}, got {tuple(y.shape)}"
            )
        return from_blocks(self.unpool(y.unflatten(1, (-1, self.block_volume))), self.stride)

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, num_blocks = self(x), math.prod(x.shape[1:]) // self.block_volume
        return y, constant_logdet(num_blocks * self.block_logdet(), y)

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


class Checkerboard(BlockDownsampling):
    """Voxels of equal parity become a channel: ``y_k = x_k`` (space-to-depth, pixel shuffle; Dinh et al., 2017).

    Example:
        >>> Checkerboard(2, spatial_dims=2)(torch.randn(2, 3, 8, 8)).shape
        torch.Size([2, 12, 4, 4])
    """


class IAvgPool(BlockDownsampling):
    """Average pooling, the differences kept: ``y₀ = (x₀ + … + x_{σ−1})/σ``, ``y_k = x_k − y₀``.

    The difference at x₀ is left out, being minus the sum of the others. ``log|det| = −log σ`` per block.

    Raises:
        ValueError: as `BlockDownsampling`, and for a state of integers.

    Example:
        >>> IAvgPool(2, spatial_dims=1)(torch.tensor([[[1.0, 3.0]]])).flatten()  # mean and difference
        tensor([2., 1.])
    """

    def pool(self, blocks: Tensor) -> Tensor:
        check_real(blocks)
        mean = blocks.mean(2, keepdim=True)
        return torch.cat((mean, blocks[:, :, 1:] - mean), dim=2)

    def unpool(self, pooled: Tensor) -> Tensor:
        check_real(pooled)
        mean, differences = pooled[:, :, :1], pooled[:, :, 1:]
        return torch.cat((mean - differences.sum(2, keepdim=True), differences + mean), dim=2)

    def block_logdet(self) -> float:
        return -math.log(self.block_volume)


class INearestPool(BlockDownsampling):
    """Subsampling, the differences kept: ``y₀ = x₀``, ``y_k = x_k − x₀``; volume preserving.

    The authors' nearest-neighbour downsampling, which the poster's "iINN" most likely is.

    Raises:
        ValueError: as `BlockDownsampling`, and for a state of integers.

    Example:
        >>> INearestPool(2, spatial_dims=1)(torch.tensor([[[1.0, 3.0]]])).flatten()
        tensor([1., 2.])
    """

    def pool(self, blocks: Tensor) -> Tensor:
        check_real(blocks)  # differences of unsigned integers would wrap
        nearest = blocks[:, :, :1]
        return torch.cat((nearest, blocks[:, :, 1:] - nearest), dim=2)

    def unpool(self, pooled: Tensor) -> Tensor:
        check_real(pooled)
        nearest = pooled[:, :, :1]
        return torch.cat((nearest, pooled[:, :, 1:] + nearest), dim=2)


INVERTIBLE_POOLINGS: dict[str, type[BlockDownsampling]] = {
    "checkerboard": Checkerboard,
    "nearest": INearestPool,
    "average": IAvgPool,
}
"""The fixed downsamplings by the names that configurations use; on the poster: Checkerboard, iINN and iAvgPool2d.

Example:
    >>> list(INVERTIBLE_POOLINGS)
    ['checkerboard', 'nearest', 'average']
"""


def invertible_pooling(name: str, stride: int | Sequence[int] = 2, *, spatial_dims: int) -> BlockDownsampling:
    """The invertible downsampling of that name.

    Args:
        name: a key of `INVERTIBLE_POOLINGS`.
        stride: side lengths of a block, one number or one per dimension.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an unknown name.

    Example:
        >>> invertible_pooling("average", spatial_dims=2)(torch.randn(2, 3, 8, 8)).shape
        torch.Size([2, 12, 4, 4])
    """
    return chosen("downsampling", name, INVERTIBLE_POOLINGS)(stride, spatial_dims=spatial_dims)
