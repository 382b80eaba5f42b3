"""Linear maps of the channels: invertible 1×1 convolutions, fixed matrices and permutations."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import as_precise_as, check_channel_number, check_channels, chosen, per_channel
from ..log_determinants import sum_over_voxels
from ..module import InvertibleModule, VolumePreserving
from .orthogonal import initial_matrices


class FullMatrix(nn.Module):
    """An invertible matrix W, its entries free."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(initial.to(torch.get_default_dtype()))

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """W of shape (C, C)."""
        return self.weight.to(dtype)

    def solve(self, columns: Tensor) -> Tensor:
        """``W⁻¹ y`` for columns y of shape (C, N)."""
        return torch.linalg.solve(self.weight.to(columns.dtype), columns)

    def logabsdet(self, dtype: torch.dtype) -> Tensor:
        return torch.linalg.slogdet(self.weight.to(dtype)).logabsdet


class LUMatrix(nn.Module):
    """``W = P L (U + diag(± exp d))``: P a fixed permutation, L and U strictly triangular, L with ones on its diagonal.

    P and the signs are those of the initial matrix; ``log|det W| = Σ d`` costs C instead of C³ operations, and W is
    invertible whatever the parameters are (Kingma and Dhariwal, 2018). L, d and U lie in one matrix, d on its diagonal.
    """

    permutation: Tensor
    signs: Tensor
    buffers_are_constants = True

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        permutation, lower, upper = torch.linalg.lu(initial)
        diagonal, dtype = upper.diagonal(), torch.get_default_dtype()
        self.register_buffer("permutation", permutation.to(dtype))
        self.register_buffer("signs", diagonal.sign().to(dtype))
        self.factors = nn.Parameter((lower.tril(-1) + upper.triu(1) + diagonal.abs().log().diag()).to(dtype))

    def _triangles(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        factors = self.factors.to(dtype)
        diagonal = self.signs.to(dtype) * factors.diagonal().exp()
        identity = torch.eye(factors.shape[0], dtype=dtype, device=factors.device)
        return factors.tril(-1) + identity, factors.triu(1) + diagonal.diag()

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """W of shape (C, C)."""
        lower, upper = self._triangles(dtype)
        return self.permutation.to(dtype) @ lower @ upper

    def solve(self, columns: Tensor) -> Tensor:
        """``W⁻¹ y`` for columns y of shape (C, N)."""
        lower, upper = self._triangles(columns.dtype)
        columns = self.permutation.to(columns.dtype).transpose(-2, -1) @ columns
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, columns, upper=True)

    def logabsdet(self, dtype: torch.dtype) -> Tensor:
        return self.factors.to(dtype).diagonal().sum()


MATRICES: dict[str, type[LUMatrix | FullMatrix]] = {"lu": LUMatrix, "full": FullMatrix}


class InvertibleConv1x1(InvertibleModule):
    """``y = W x`` over the channels of each voxel, with a learnable invertible C×C matrix W.

    From Glow (Kingma and Dhariwal, 2018). State (B, C, *spatial), vectors (B, C) included; ``log|det dy/dx|`` is
    ``log|det W|`` times the number of voxels. Evaluated in at least float32, also under autocast.

    Args:
        channels: number of channels C.
        parametrisation: ``lu`` or ``full``.
        init: ``orthogonal`` (random), ``identity``, or an invertible matrix (C, C).

    Raises:
        ValueError: for unknown options, a singular initial matrix, or another number of channels.

    Example:
        >>> layer, x = InvertibleConv1x1(4), torch.randn(2, 4, 8, 8)
        >>> torch.allclose(layer.inverse(layer(x)), x, atol=1e-5)
        True
    """

    def __init__(self, channels: int, parametrisation: str = "lu", init: Any = "orthogonal") -> None:
        super().__init__()
        self.channels = channels
        initial = initial_matrices(init, 1, channels, {"identity": torch.eye(channels)}, random="orthogonal")[0]
        _check_condition(initial)
        self.mixing = chosen("parametrisation", parametrisation, MATRICES)(initial)

    def forward(self, x: Tensor) -> Tensor:
        columns = self._columns(x)
        with torch.autocast(x.device.type, enabled=False):
            return as_precise_as(x, self.mixing.matrix(columns.dtype) @ columns).reshape(x.shape)

    def inverse(self, y: Tensor) -> Tensor:
        columns = self._columns(y).transpose(0, 1)  # (C, B, N): one solve for the whole batch
        with torch.autocast(y.device.type, enabled=False):
            x = self.mixing.solve(columns.flatten(1)).reshape(columns.shape)
        return as_precise_as(y, x.transpose(0, 1)).reshape(y.shape)

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self(x)
        logabsdet = self.mixing.logabsdet(torch.promote_types(x.dtype, torch.float32))
        return y, sum_over_voxels(logabsdet, x)

    def _columns(self, x: Tensor) -> Tensor:
        """A state (B, C, *spatial) as (B, C, N), in the precision of the computation."""
        check_channels(x, self.channels)
        return x.reshape(*x.shape[:2], math.prod(x.shape[2:])).to(torch.promote_types(x.dtype, torch.float32))

    def extra_repr(self) -> str:
        return f"{self.channels}"


def _check_condition(matrix: Tensor) -> None:
    condition = torch.linalg.cond(matrix)
    if not condition < 1e7:
        raise ValueError(f"expected an invertible matrix, got condition number {condition:.1e}")


class FixedLinear(InvertibleModule):
    """``y = M x + b`` over the channels of each voxel, with a fixed invertible C×C matrix M and a fixed b.

    State (B, C, *spatial), vectors (B, C) included; ``log|det dy/dx|`` is ``log|det M|`` times the number of voxels.

    Args:
        matrix: M (C, C).
        offset: b (C,); zero by default.

    Raises:
        ValueError: for a matrix that is not square or singular, an offset or a state with another number of channels.

    Example:
        >>> FixedLinear([[0.0, 2.0], [1.0, 0.0]])(torch.tensor([[3.0, 4.0]]))
        tensor([[8., 3.]])
    """

    matrix: Tensor
    offset: Tensor
    buffers_are_constants = True

    def __init__(self, matrix: Any, offset: Any = None) -> None:
        super().__init__()
        exact = torch.as_tensor(matrix, dtype=torch.float64)
        if exact.ndim != 2 or exact.shape[0] != exact.shape[1]:
            raise ValueError(f"expected a square matrix, got shape {tuple(exact.shape)}")
        shift = torch.zeros(len(exact)) if offset is None else torch.as_tensor(offset)
        if shift.shape != exact.shape[:1]:
            raise ValueError(f"expected an offset of shape ({len(exact)},), got {tuple(shift.shape)}")
        _check_condition(exact)
        dtype = torch.get_default_dtype()
        self.register_buffer("matrix", exact.to(dtype))
        self.register_buffer("offset", shift.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return _multiplied(self.matrix, x) + per_channel(self.offset, x)

    def inverse(self, y: Tensor) -> Tensor:
        return _multiplied(torch.linalg.inv(self._wide(y)), y - per_channel(self.offset, y))

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logabsdet = torch.linalg.slogdet(self._wide(x)).logabsdet
        return self(x), sum_over_voxels(logabsdet, x)

    def _wide(self, state: Tensor) -> Tensor:
        """M in the precision of the state, but at least in float32: torch inverts nothing in half precision."""
        return self.matrix.to(torch.promote_types(state.dtype, torch.float32))

    def extra_repr(self) -> str:
        return f"{len(self.offset)}"


def _multiplied(matrix: Tensor, x: Tensor) -> Tensor:
    """``M x`` over the channels of a state, whatever autocast says."""
    check_channels(x, matrix.shape[1])
    with torch.autocast(x.device.type, enabled=False):
        return (as_precise_as(x, matrix) @ x.reshape(*x.shape[:2], math.prod(x.shape[2:]))).reshape(x.shape)


class Permutation(VolumePreserving):
    """A fixed permutation of the channels: ``y_i = x_{order[i]}``.

    Its order is a buffer of integers. Averages of the weights must copy it, as `torch.optim.swa_utils.AveragedModel`
    does by default; ``use_buffers=True`` (in Lightning's `WeightAveraging` the default) would round it down.

    Args:
        channels: number of channels C of the state (B, C, *spatial), or (B, C).
        order: the permutation; by default a random one, which ``seed`` determines.
        seed: of the random permutation.

    Raises:
        ValueError: for an order that is no permutation of 0 … C−1, or another number of channels.

    Example:
        >>> Permutation(3, order=[2, 0, 1])(torch.tensor([[10, 11, 12]]))
        tensor([[12, 10, 11]])
    """

    order: Tensor
    buffers_are_constants = True

    def __init__(self, channels: int, order: Sequence[int] | None = None, *, seed: int = 0) -> None:
        super().__init__()
        check_channel_number(channels)
        if order is None:
            indices = torch.randperm(channels, generator=torch.Generator().manual_seed(seed))
        elif sorted(order) == list(range(channels)):
            indices = torch.tensor(list(order))
        else:
            raise ValueError(f"expected a permutation of 0 to {channels - 1}, got {list(order)}")
        self.register_buffer("order", indices)

    def forward(self, x: Tensor) -> Tensor:
        check_channels(x, len(self.order))
        return x[:, self.order]

    def inverse(self, y: Tensor) -> Tensor:
        check_channels(y, len(self.order))
        return y[:, self.order.argsort()]

    def extra_repr(self) -> str:
        return f"{self.order.shape[0]}"
