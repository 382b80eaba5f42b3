"""Invertible downsampling: space is traded for channels by an orthogonal strided convolution, learned or fixed."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_channels, per_dimension
from ..composites import Sequential
from ..module import InvertibleModule
from .linear import Permutation
from .logit import FixedAffine
from .orthogonal import OrthogonalMap, haar_matrix, initial_matrices
from .orthogonal_matrices import OrthogonalMatrices
from .space_to_depth import coarse_size, from_blocks, to_blocks


class Downsampling(OrthogonalMap):
    """Invertible downsampling by an orthogonal convolution with kernel size = stride (iUNet paper, Corollary 6).

    Each channel is cut into blocks of σ = s₁⋯s_d voxels; each block is multiplied by the channel's orthogonal σ×σ
    matrix. (B, C, N₁, …) → (B, σC, N₁/s₁, …), where channel c becomes the channels cσ … cσ+σ−1. It equals a
    strided convolution with C groups; blocks times matrices is its fastest form on CPU (1.0–1.7 times as fast).

    Upsampling is ``Inverse(Downsampling(...))``.

    Args:
        channels: number of channels C of the input.
        stride: factor per spatial dimension.
        method: parametrisation of the orthogonal matrices: ``exp``, ``cayley`` or ``householder``.
        init: ``haar``, ``pixel_shuffle``, ``random``, or an orthogonal matrix (σ, σ) or (C, σ, σ).
        learnable: whether the matrices are trained.
        num_reflections: for ``householder``.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for unknown options, or a state whose size is not divisible by the stride.

    Example:
        >>> down, x = Downsampling(3, stride=2, spatial_dims=2), torch.randn(2, 3, 8, 8)
        >>> down(x).shape, torch.allclose(Inverse(down)(down(x)), x, atol=1e-5)
        (torch.Size([2, 12, 4, 4]), True)
    """

    def __init__(
        self,
        channels: int,
        stride: int | Sequence[int] = 2,
        *,
        spatial_dims: int,
        method: str = "exp",
        init: Any = "haar",
        learnable: bool = True,
        num_reflections: int | None = None,
    ) -> None:
        stride = per_dimension(stride, spatial_dims, "stride")
        named = {"haar": haar_matrix(stride), "pixel_shuffle": torch.eye(math.prod(stride))}
        initial = initial_matrices(init, channels, math.prod(stride), named, random="random")
        initial = initial.to(torch.get_default_dtype())
        super().__init__(OrthogonalMatrices(initial, method, learnable=learnable, num_reflections=num_reflections))
        self.channels = channels
        self.stride = stride

    def output_spatial(self, x: Tensor) -> list[int]:
        return coarse_size(x.shape[2:], self.stride)

    def to_columns(self, x: Tensor) -> Tensor:
        check_channels(x, self.channels)
        return to_blocks(x, self.stride).flatten(3)  # (B, C, σ, N)

    def from_columns(self, columns: Tensor, output_spatial: Sequence[int]) -> Tensor:
        return from_blocks(columns.reshape(*columns.shape[:3], *output_spatial), self.stride)

    def extra_repr(self) -> str:
        return f"{self.channels} -> {self.channels * math.prod(self.stride)} channels, stride={self.stride}"


class HaarDownsampling(Sequential):
    """The fixed Haar transform of blocks of 2^d voxels, as FrEIA has it in 2D: means and wavelets become channels.

    (B, C, N₁, …) → (B, 2^d C, N₁/2, …). Upsampling is its ``inverted()``.

    Args:
        channels: number of channels C of the input.
        rebalance: factor on the output; 1 is the orthogonal transform. ``log|det dy/dx|`` is the logarithm of its
            magnitude times the size of a sample.
        order_by_wavelet: first the means of all channels, then the first wavelets of all, and so on, instead of mean
            and wavelets of the first channel, then those of the second.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for ``rebalance=0``, or a state whose size is odd.

    Example:
        >>> HaarDownsampling(3, spatial_dims=2)(torch.randn(2, 3, 8, 8)).shape
        torch.Size([2, 12, 4, 4])
    """

    def __init__(
        self, channels: int, *, spatial_dims: int, rebalance: float = 1.0, order_by_wavelet: bool = False
    ) -> None:
        volume = 2**spatial_dims
        parts: dict[str, InvertibleModule] = {
            "transform": Downsampling(channels, spatial_dims=spatial_dims, learnable=False),
            "rebalance": FixedAffine(rebalance),
        }
        if order_by_wavelet:
            order = torch.arange(channels * volume).reshape(channels, volume).T.flatten()
            parts["order"] = Permutation(channels * volume, order.tolist())
        super().__init__(OrderedDict(parts))
