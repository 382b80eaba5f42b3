"""Learnable orthogonal matrices, and the invertible maps that apply them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .layout import laid_out_as
from .module import VolumePreserving


def matrix_exponential(theta: Tensor) -> Tensor:
    """``exp(θ − θᵀ)``: special orthogonal for every θ of shape (..., n, n) (iUNet paper, equation 4)."""
    return torch.linalg.matrix_exp(theta - theta.mT)


def cayley_transform(theta: Tensor) -> Tensor:
    """``(I + S)⁻¹ (I − S)`` with ``S = θ − θᵀ``, for θ of shape (..., n, n)."""
    skew = theta - theta.mT
    identity = torch.eye(theta.shape[-1], dtype=theta.dtype, device=theta.device)
    return torch.linalg.solve(identity + skew, identity - skew)


def householder_product(theta: Tensor) -> Tensor:
    """``H₁ H₂ ⋯ H_k`` with the reflections ``H_i = I − 2 v_i v_iᵀ / |v_i|²``, for θ = (v_i) of shape (..., k, n)."""
    product = torch.eye(theta.shape[-1], dtype=theta.dtype, device=theta.device)
    for unit in nn.functional.normalize(theta, dim=-1).unbind(-2):
        product = product - 2 * (product @ unit[..., :, None]) @ unit[..., None, :]
    return product


PARAMETRISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": matrix_exponential,
    "cayley": cayley_transform,
    "householder": householder_product,
}


class OrthogonalMatrices(nn.Module):
    """A batch of learnable orthogonal matrices ``A(θ) = R(θ) R(θ₀)ᵀ A₀``, equal to ``A₀`` at the start.

    R is one of the parametrisations. The fixed factor ``R(θ₀)ᵀ A₀`` lets each of them start at any orthogonal matrix,
    also at those that R alone does not reach (determinant −1; for Cayley, an eigenvalue −1), and makes weight
    decay pull towards the start. θ₀ is zero for ``exp`` and ``cayley``, random for ``householder``.

    Args:
        initial: ``A₀``, orthogonal matrices of shape (k, n, n).
        method: ``exp``, ``cayley`` or ``householder``.
        learnable: whether θ is trained.
        num_reflections: number of Householder reflections, n by default.

    Raises:
        ValueError: for an unknown method, a matrix that is not orthogonal, or reflections with another method.
    """

    start: Tensor
    buffers_are_constants = True

    def __init__(
        self, initial: Tensor, method: str = "exp", *, learnable: bool = True, num_reflections: int | None = None
    ) -> None:
        super().__init__()
        if method not in PARAMETRISATIONS:
            raise ValueError(f"expected method to be one of {', '.join(PARAMETRISATIONS)}, got {method!r}")
        if num_reflections is not None and (method != "householder" or num_reflections < 1):
            raise ValueError(
                f"expected num_reflections >= 1 with method 'householder', got {num_reflections} with {method!r}"
            )
        _check_orthogonal(initial)
        self.method = method
        num, n, _ = initial.shape
        if method == "householder":
            theta = torch.randn(num, num_reflections or n, n, dtype=initial.dtype)
        else:
            theta = torch.zeros(num, n, n, dtype=initial.dtype)
        self.theta = nn.Parameter(theta, requires_grad=learnable)
        rotation = PARAMETRISATIONS[method](theta.double())
        self.register_buffer("start", (rotation.mT @ initial.double()).to(initial.dtype).contiguous())

    def forward(self) -> Tensor:
        """``A(θ)`` of shape (k, n, n), in at least float32."""
        # Half precision and autocast would leave the matrix orthogonal to two digits only, and the map not invertible.
        with torch.autocast(self.theta.device.type, enabled=False):
            precision = torch.promote_types(self.theta.dtype, torch.float32)
            start = self.start.to(precision)
            if precision == torch.float64:
                # A network cast from float32 brings a start that is orthogonal to 1e-7 only; one Newton–Schulz step
                # squares that error.
                start = 1.5 * start - 0.5 * start @ start.mT @ start
            return PARAMETRISATIONS[self.method](self.theta.to(precision)) @ start

    def extra_repr(self) -> str:
        return f"{tuple(self.start.shape)}, method={self.method!r}, learnable={self.theta.requires_grad}"


def _check_orthogonal(matrices: Tensor) -> None:
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2]:
        raise ValueError(f"expected matrices of shape (k, n, n), got {tuple(matrices.shape)}")
    identity = torch.eye(matrices.shape[-1], dtype=torch.float64)
    error = (matrices.double().mT @ matrices.double() - identity).abs().max().item()
    if not error < 1e-5:
        raise ValueError(f"expected orthogonal matrices, got max|AᵀA − I| = {error:.1e}")


def haar_matrix(stride: Sequence[int]) -> Tensor:
    """The orthonormal Haar transform of a block with side lengths ``stride``, of shape (σ, σ), in float64.

    Rows are filters on the block in row-major order; the first is the scaled mean. In several dimensions it is the
    Kronecker product of the one-dimensional ones.
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


def given_matrices(matrix: Any, num: int, n: int) -> Tensor:
    """A given matrix (n, n), used ``num`` times, or given matrices (num, n, n), as a float64 tensor.

    Raises:
        ValueError: for another shape.
    """
    matrices = torch.as_tensor(matrix, dtype=torch.float64)
    if matrices.shape not in ((n, n), (num, n, n)):
        raise ValueError(f"expected a matrix of shape {(n, n)} or {(num, n, n)}, got {tuple(matrices.shape)}")
    return matrices.expand(num, n, n).clone()


class OrthogonalMap(VolumePreserving):
    """``y = A x`` on columns of a state: groups of n numbers, each multiplied by its group's orthogonal n×n matrix.

    Subclasses say which numbers of a state form a column.
    """

    def __init__(self, matrices: OrthogonalMatrices) -> None:
        super().__init__()
        self.matrices = matrices

    def to_columns(self, x: Tensor) -> Tensor:
        """The columns of an input (B, C, *spatial), as (B, k, n, N)."""
        raise NotImplementedError

    def from_columns(self, columns: Tensor, output_spatial: Sequence[int]) -> Tensor:
        """The inverse of `to_columns`, given the spatial size of the output."""
        raise NotImplementedError

    def output_spatial(self, x: Tensor) -> list[int]:
        """Spatial size of the output for an input (B, C, *spatial)."""
        raise NotImplementedError

    def output_columns(self, y: Tensor) -> Tensor:
        """The columns of an output (B, k·n, *spatial), as (B, k, n, N)."""
        k, n, _ = self.matrices.start.shape
        if y.shape[1] != k * n:
            raise ValueError(f"expected {k * n} channels, got {y.shape[1]}")
        return y.reshape(y.shape[0], k, n, -1)

    def output_of(self, columns: Tensor, x: Tensor) -> Tensor:
        """The output that columns (B, k, n, N) make up, for an input like ``x``."""
        return laid_out_as(x, columns.reshape(x.shape[0], -1, *self.output_spatial(x)))

    def input_of(self, columns: Tensor, y: Tensor) -> Tensor:
        """The input that columns (B, k, n, N) make up, for an output like ``y``."""
        return laid_out_as(y, self.from_columns(columns, y.shape[2:]))

    def forward(self, x: Tensor) -> Tensor:
        return self.output_of(multiply(self.matrices(), self.to_columns(x)), x)

    def inverse(self, y: Tensor) -> Tensor:
        return self.input_of(multiply(self.matrices().mT, self.output_columns(y)), y)


def multiply(matrices: Tensor, columns: Tensor) -> Tensor:
    """``A x`` for matrices (k, n, n) and columns (B, k, n, N), in the columns' precision, whatever autocast says."""
    with torch.autocast(columns.device.type, enabled=False):
        matrices = matrices.to(columns.dtype)
        if columns.stride(-2) == 1:  # each column's numbers lie side by side: keep them so
            return (columns.mT @ matrices.mT).mT
        return matrices @ columns
