"""Splitting, joining and reshaping states: bijections that only rearrange numbers."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..module import Inverse, State, VolumePreserving, tensors_of


class Split(VolumePreserving):
    """``x ↦ (x₁, …, x_n)``: parts of the given sizes along one dimension.

    State (B, C, *spatial).

    Args:
        sizes: of the parts; a single one stays a tensor.
        dim: the dimension that is cut: 1 for channels, 2 … for space.

    Raises:
        ValueError: for an empty part, the batch dimension, or a state of another size.

    Example:
        >>> first, rest = Split([1, 3])(torch.randn(2, 4, 8, 8))
        >>> rest.shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, sizes: Sequence[int], dim: int = 1) -> None:
        super().__init__()
        if not sizes or min(sizes) < 1 or dim < 1:
            raise ValueError(f"expected positive sizes and dim >= 1, got sizes={list(sizes)}, dim={dim}")
        self.sizes = list(sizes)
        self.dim = dim

    def forward(self, x: Tensor) -> State:
        if not isinstance(x, Tensor) or x.ndim <= self.dim or x.shape[self.dim] != sum(self.sizes):
            raise ValueError(f"expected one tensor with size {sum(self.sizes)} in dimension {self.dim}, got {_form(x)}")
        parts = x.split(self.sizes, self.dim)
        return parts if len(parts) > 1 else parts[0]

    def inverse(self, y: State) -> Tensor:
        parts = tensors_of(y)
        if [part.shape[self.dim] for part in parts if part.ndim > self.dim] != self.sizes:
            raise ValueError(f"expected parts of sizes {self.sizes} in dimension {self.dim}, got {_form(y)}")
        return torch.cat(parts, self.dim)

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}, dim={self.dim}"


class Concat(Inverse):
    """``(x₁, …, x_n) ↦ x``, the inverse of `Split`; the sizes tell its own inverse where to cut.

    Args:
        sizes, dim: see `Split`.

    Example:
        >>> Concat([1, 3])((torch.randn(2, 1, 8), torch.randn(2, 3, 8))).shape
        torch.Size([2, 4, 8])
    """

    def __init__(self, sizes: Sequence[int], dim: int = 1) -> None:
        super().__init__(Split(sizes, dim))


class Reshape(VolumePreserving):
    """``(B, *shape_in) → (B, *shape_out)`` in row-major order.

    Args:
        shape_in: shape of the input without the batch dimension.
        shape_out: that of the output; without one, the input is flattened to (B, N).

    Raises:
        ValueError: for shapes with different numbers of elements, or a state of another shape.

    Example:
        >>> Reshape([3, 4, 4])(torch.randn(2, 3, 4, 4)).shape
        torch.Size([2, 48])
    """

    def __init__(self, shape_in: Sequence[int], shape_out: Sequence[int] | None = None) -> None:
        super().__init__()
        self.shape_in = tuple(shape_in)
        self.shape_out = (math.prod(shape_in),) if shape_out is None else tuple(shape_out)
        if math.prod(self.shape_in) != math.prod(self.shape_out):
            raise ValueError(
                f"expected shapes with equal numbers of elements, got {self.shape_in} and {self.shape_out}"
            )

    def forward(self, x: Tensor) -> Tensor:
        return _reshaped(x, self.shape_in, self.shape_out)

    def inverse(self, y: Tensor) -> Tensor:
        return _reshaped(y, self.shape_out, self.shape_in)

    def extra_repr(self) -> str:
        return f"{self.shape_in} -> {self.shape_out}"


def _reshaped(state: Tensor, before: tuple[int, ...], after: tuple[int, ...]) -> Tensor:
    if not isinstance(state, Tensor) or tuple(state.shape[1:]) != before:
        raise ValueError(f"expected one tensor of shape (B, {', '.join(map(str, before))}), got {_form(state)}")
    return state.reshape(state.shape[0], *after)


def _form(state: object) -> str:
    if isinstance(state, tuple):
        return f"{len(state)} tensors of shapes {[tuple(part.shape) for part in state]}"
    return f"shape {tuple(state.shape)}" if isinstance(state, Tensor) else type(state).__name__
