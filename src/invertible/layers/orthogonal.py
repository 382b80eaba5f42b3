"""Maps that multiply the columns of a state by orthogonal matrices, and the matrices that they may start with."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ..arguments import as_precise_as, check_channels
from ..engine.ownership import is_compact
from ..engine.walk import LeafBackward, backward_rule
from ..module import VolumePreserving
from .layout import laid_out_as
from .orthogonal_matrices import OrthogonalMatrices


def haar_matrix(stride: Sequence[int]) -> Tensor:
    """The orthonormal Haar transform of a block with side lengths ``stride``, of shape (σ, σ), in float64.

    Rows are filters on the block in row-major order; the first is the scaled mean. In several dimensions it is the
    Kronecker product of the one-dimensional ones.

    Args:
        stride: side lengths s₁, …, s_d of a block, powers of 2; σ is their product.

    Example:
        >>> haar_matrix([2])
        tensor([[ 0.7071,  0.7071],
                [ 0.7071, -0.7071]], dtype=torch.float64)
    """
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for length in stride:
        matrix = torch.kron(matrix, _haar_1d(length))
    return matrix


def _haar_1d(length: int) -> Tensor:
    """Mean, then wavelets: each constant on the two halves of an interval that is halved again and again.

    Lengths that are no power of two give halves of unequal length (the unbalanced Haar basis, Fryzlewicz 2007).
    """
    rows = [torch.full((length,), length**-0.5, dtype=torch.float64)]
    intervals = [(0, length)]
    while intervals:
        start, stop = intervals.pop(0)
        size = stop - start
        if size < 2:
            continue
        left = (size + 1) // 2
        right = size - left
        row = torch.zeros(length, dtype=torch.float64)
        row[start : start + left] = math.sqrt(right / (left * size))
        row[start + left : stop] = -math.sqrt(left / (right * size))
        rows.append(row)
        intervals += [(start, start + left), (start + left, stop)]
    return torch.stack(rows)


def random_orthogonal(num: int, n: int) -> Tensor:
    """``num`` independent matrices, uniform on O(n), of shape (num, n, n), in float64."""
    q, r = torch.linalg.qr(torch.randn(num, n, n, dtype=torch.float64))
    return q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]


def initial_matrices(init: Any, num: int, n: int, named: dict[str, Tensor], *, random: str) -> Tensor:
    """Matrices (num, n, n) to start with, in float64.

    Args:
        init: the name of one, a matrix (n, n), used ``num`` times, or matrices (num, n, n).
        num, n: how many, and their size.
        named: matrices (n, n) by name.
        random: the name that stands for `random_orthogonal`.

    Raises:
        ValueError: for an unknown name, or another shape.
    """
    if isinstance(init, str):
        if init == random:
            return random_orthogonal(num, n)
        if init not in named:
            raise ValueError(f"expected init to be {', '.join([*named, random])} or a matrix, got {init!r}")
        init = named[init]
    matrices = torch.as_tensor(init, dtype=torch.float64)
    if matrices.shape not in ((n, n), (num, n, n)):
        raise ValueError(f"expected a matrix of shape {(n, n)} or {(num, n, n)}, got {tuple(matrices.shape)}")
    return matrices.expand(num, n, n).clone()


class OrthogonalMap(VolumePreserving):
    """``y = A x`` on columns of a state: groups of n numbers, each multiplied by its group's orthogonal n×n matrix.

    By default, a column is a group of n channels at one voxel.
    """

    def __init__(self, matrices: OrthogonalMatrices) -> None:
        super().__init__()
        self.matrices = matrices

    def to_columns(self, x: Tensor) -> Tensor:
        """The columns of an input (B, C, *spatial), as (B, k, n, N)."""
        return self.output_columns(x)

    def from_columns(self, columns: Tensor, output_spatial: Sequence[int]) -> Tensor:
        """The inverse of `to_columns`, given the spatial size of the output."""
        return columns.reshape(columns.shape[0], math.prod(columns.shape[1:3]), *output_spatial)

    def output_spatial(self, x: Tensor) -> list[int]:
        """Spatial size of the output for an input (B, C, *spatial)."""
        return list(x.shape[2:])

    def output_columns(self, y: Tensor) -> Tensor:
        """The columns of an output (B, k·n, *spatial), as (B, k, n, N)."""
        k, n, _ = self.matrices.start.shape
        check_channels(y, k * n)
        return y.reshape(y.shape[0], k, n, math.prod(y.shape[2:]))

    def output_of(self, columns: Tensor, x: Tensor) -> Tensor:
        """The output that columns (B, k, n, N) make up, for an input like ``x``."""
        return laid_out_as(x, columns.reshape(x.shape[0], math.prod(columns.shape[1:3]), *self.output_spatial(x)))

    def input_of(self, columns: Tensor, y: Tensor) -> Tensor:
        """The input that columns (B, k, n, N) make up, for an output like ``y``."""
        return laid_out_as(y, self.from_columns(columns, y.shape[2:]))

    def forward(self, x: Tensor) -> Tensor:
        return self.output_of(multiply(self.matrices(), self.to_columns(x)), x)

    def inverse(self, y: Tensor) -> Tensor:
        return self.input_of(multiply(self.matrices().transpose(-2, -1), self.output_columns(y)), y)


def multiply(matrices: Tensor, columns: Tensor) -> Tensor:
    """``A x`` for matrices (k, n, n) and columns (B, k, n, N), in the columns' precision, whatever autocast says."""
    device_type = columns.device.type
    # Entering it always would take as long as the product of a small state.
    with torch.autocast(device_type, enabled=False) if torch.is_autocast_enabled(device_type) else nullcontext():
        matrices = as_precise_as(columns, matrices)
        if columns.stride(-2) == 1:  # each column's numbers lie side by side: keep them so
            return (columns.transpose(-2, -1) @ matrices.transpose(-2, -1)).transpose(-2, -1)
        return matrices @ columns


# On a GPU, sums over more columns than this are split into parts. A product of 16 rows fills one tile of a matrix
# kernel: unless something splits the sum, one of a hundred multiprocessors computes it.
_LONG_SUM, _PART = 2**19, 2**15


def outer_products(a: Tensor, b: Tensor) -> Tensor:
    """``Σ a bᵀ`` over samples and columns, (k, n, n), for columns (B, k, n, N)."""
    num_columns = a.shape[-1]
    if not a.is_cuda or num_columns <= _LONG_SUM:
        return multiply(a, b.mT).sum(0)
    return sum_in_parts(a, b, num_columns // _PART)


def sum_in_parts(a: Tensor, b: Tensor, num_parts: int) -> Tensor:
    """The same from sums over parts of the columns, all at once for each sample and group, without a copy of either."""
    length = a.shape[-1] // num_parts
    whole = num_parts * length

    def product(a: Tensor, b: Tensor) -> Tensor:  # of columns (n, N)
        parts = (c[:, :whole].unflatten(1, (num_parts, length)).movedim(1, 0) for c in (a, b))  # (parts, n, length)
        first, second = parts
        total = multiply(first, second.mT).sum(0)
        return total if whole == a.shape[1] else total + multiply(a[:, whole:], b[:, whole:].mT)

    groups = zip(a.transpose(0, 1), b.transpose(0, 1), strict=True)
    return torch.stack([torch.stack([product(*c) for c in zip(*group, strict=True)]).sum(0) for group in groups])


@backward_rule(OrthogonalMap)
def orthogonal_map(leaf: LeafBackward, layer: OrthogonalMap, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """``x = Aᵀ y``, ``∇x = Aᵀ ∇y``, ``∇A = ∇y xᵀ = (∇y yᵀ) A``: no second forward pass."""
    y_columns, grad_columns, matrices = layer.output_columns(y), layer.output_columns(grad), layer.matrices()
    leaf.differentiate_value(layer.matrices, multiply(outer_products(grad_columns, y_columns), matrices))
    # One after the other, each into its own memory where it fits: three states at a time instead of four.
    x = _in_place_of(y, layer.input_of(multiply(matrices.mT, y_columns), y))
    return x, _in_place_of(grad, layer.input_of(multiply(matrices.mT, grad_columns), y))


@backward_rule(OrthogonalMap, inverse=True)
def inverse_orthogonal_map(leaf: LeafBackward, layer: OrthogonalMap, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The same for ``y = Aᵀ x``: ``x = A y``, ``∇x = A ∇y``, ``∇A = x ∇yᵀ = A (y ∇yᵀ)``."""
    y_columns, grad_columns, matrices = layer.to_columns(y), layer.to_columns(grad), layer.matrices()
    leaf.differentiate_value(layer.matrices, multiply(matrices, outer_products(y_columns, grad_columns)))
    x = _in_place_of(y, layer.output_of(multiply(matrices, y_columns), y))
    return x, _in_place_of(grad, layer.output_of(multiply(matrices, grad_columns), y))


def _in_place_of(old: Tensor, new: Tensor) -> Tensor:
    """``new`` in the memory of ``old``: of the same shape, or of as many numbers if ``old`` fills its memory."""
    if old.shape != new.shape and old.numel() == new.numel() and is_compact(old) and is_compact(new):
        old = old.as_strided(new.shape, new.stride())
    return old.copy_(new) if old.shape == new.shape else new
