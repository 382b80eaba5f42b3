"""Learnable orthogonal matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..arguments import chosen
from ..engine.shared_values import SharedValue
from ..export import needs_plain_operations
from ..onnx_operations import cayley_by_products

if TYPE_CHECKING:
    from typing_extensions import Self


# How often the exponential of a small part of the exponent is squared: enough for norms up to 9000.
_SQUARINGS = 14
# The largest norm of that part at which the polynomial has the digits of single and of double precision.
_SMALL = {torch.float32: 2.0**-2, torch.float64: 2.0**-5}


def matrix_exponential(theta: Tensor) -> Tensor:
    """``exp(θ − θᵀ)``: special orthogonal for every θ of shape (..., n, n) (iUNet paper, equation 4).

    With ``S = (θ − θᵀ) / 2^s``, ``E = exp(S) − 1`` comes from its Taylor polynomial of degree 8 in four products
    (Paterson and Stockmeyer, 1973), and ``exp(2S) − 1 = 2E + E²`` s times. Without the 1, no digits of a small E are
    lost, so s need not follow the norm: on a GPU it is fixed. `torch.linalg.matrix_exp` asks for the norm, for which a
    CPU waits for its GPU. Its errors in float32 are 3 to 90 times as large, and its gradient takes up to three times
    as long.
    """
    n = theta.shape[-1]
    skew = (theta - theta.transpose(-2, -1)).reshape(-1, n, n)
    squarings = _squarings(skew)
    part = skew * 2.0**-squarings
    square = part @ part
    e = torch.baddbmm(part / 120 + square / 720, square, part / 5040 + square / 40320)
    e = torch.baddbmm(part / 6 + square / 24, square, e)
    e = torch.baddbmm(part + square / 2, square, e)
    for _ in range(squarings):
        e = torch.baddbmm(e, e, e, beta=2)
    return (e + torch.eye(n, dtype=theta.dtype, device=theta.device)).reshape(theta.shape)


def _squarings(skew: Tensor) -> int:
    """How often to square: on a CPU, where it costs no time to read it, as the norm demands."""
    small = _SMALL.get(skew.dtype)
    if small is None or skew.device.type != "cpu" or type(skew) is not Tensor or needs_plain_operations():
        return _SQUARINGS
    norm = skew.detach().abs().sum(-1).amax().item() if skew.numel() else 0.0
    return min(max(math.ceil(math.log2(norm / small)), 0), _SQUARINGS) if 0 < norm < math.inf else 0


def cayley_transform(theta: Tensor) -> Tensor:
    """``(I + S)⁻¹ (I − S)`` with ``S = θ − θᵀ``, for θ of shape (..., n, n)."""
    skew = theta - theta.mT
    identity = torch.eye(theta.shape[-1], dtype=theta.dtype, device=theta.device)
    # I + S is never singular, and `solve` would wait for a GPU to say so.
    return torch.linalg.solve_ex(identity + skew, identity - skew).result


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


_FOR_ONNX = PARAMETRISATIONS | {"cayley": cayley_by_products}


class OrthogonalMatrices(SharedValue):
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

    Example:
        >>> matrices = OrthogonalMatrices(torch.eye(4).expand(3, 4, 4), method="householder")
        >>> matrices().shape
        torch.Size([3, 4, 4])
    """

    start: Tensor
    buffers_are_constants = True

    def __init__(
        self, initial: Tensor, method: str = "exp", *, learnable: bool = True, num_reflections: int | None = None
    ) -> None:
        super().__init__()
        parametrisation = chosen("method", method, PARAMETRISATIONS)
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
        rotation = parametrisation(theta.double())
        self.register_buffer("start", (rotation.mT @ initial.double()).to(initial.dtype).contiguous())

    def batch_key(self) -> Hashable:
        theta, start = self.theta, self.start
        return self.method, theta.shape[1:], theta.dtype, start.dtype, theta.device, theta.requires_grad

    @classmethod
    def values(cls, modules: Sequence[Self]) -> Sequence[Tensor]:
        """``A(θ)`` of each module, of shape (k, n, n), in at least float32.

        An exponential takes some 35 operations on small tensors, and its gradient 80, whatever the number of matrices.
        """
        if len(modules) == 1:
            return [_matrices(modules[0].method, modules[0].theta, modules[0].start)]
        theta, start = (torch.cat(parts) for parts in zip(*((m.theta, m.start) for m in modules), strict=True))
        return _matrices(modules[0].method, theta, start).split([len(m.theta) for m in modules])

    def extra_repr(self) -> str:
        return f"{tuple(self.start.shape)}, method={self.method!r}, learnable={self.theta.requires_grad}"


def _check_orthogonal(matrices: Tensor) -> None:
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2]:
        raise ValueError(f"expected matrices of shape (k, n, n), got {tuple(matrices.shape)}")
    identity = torch.eye(matrices.shape[-1], dtype=torch.float64)
    error = (matrices.double().mT @ matrices.double() - identity).abs().max().item()
    if not error < 1e-5:
        raise ValueError(f"expected orthogonal matrices, got max|AᵀA − I| = {error:.1e}")


def _matrices(method: str, theta: Tensor, start: Tensor) -> Tensor:
    """``R(θ)`` times the fixed factor ``start``."""
    # Half precision and autocast would leave the matrix orthogonal to two digits only, and the map not invertible.
    with torch.autocast(theta.device.type, enabled=False):
        precision = torch.promote_types(theta.dtype, torch.float32)
        parametrisations = _FOR_ONNX if torch.onnx.is_in_onnx_export() else PARAMETRISATIONS
        rotation = parametrisations[method](theta.to(precision))
        wide = precision if theta.device.type == "mps" else torch.float64  # Apple's GPUs have none
        return _nearer_to_orthogonal(rotation.to(wide) @ start.to(wide)).to(precision)


def _nearer_to_orthogonal(matrices: Tensor) -> Tensor:
    """One Newton–Schulz step ``A (3 I − AᵀA) / 2``: it squares the distance to the orthogonal matrices.

    In float32 a matrix exponential is orthogonal to 1e-6 for a θ of size 1 and to 1e-4 for one of size 100, and in
    float64 a start that was cast from float32 to 1e-7. The exponential itself would take three times as long in
    float64; this step does not, and leaves the rounding of each entry to float32 as the only error.
    """
    return 1.5 * matrices - 0.5 * matrices @ matrices.transpose(-2, -1) @ matrices
