"""Functions in operations that ONNX knows."""

import torch
from torch import Tensor

_DOUBLINGS = 32  # of the inverse's digits: for norms up to 10⁴


def cayley_by_products(theta: Tensor) -> Tensor:
    """The Cayley transform without a solver: ``(I + S)⁻¹ (I − S) = (I − S)² M⁻¹`` with ``S = θ − θᵀ``, where
    ``M = I − S²`` is positive definite: by Newton–Schulz steps ``X ← X (2I − M X)``."""
    wide = theta.double()
    skew = wide - wide.transpose(-2, -1)
    identity = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    m = identity - skew @ skew
    inverse = identity / m.abs().sum(-1).amax(-1)[..., None, None]
    for _ in range(_DOUBLINGS):
        inverse = inverse @ (2 * identity - m @ inverse)
    return ((identity - skew) @ (identity - skew) @ inverse).to(theta.dtype)


def root_of_one_plus_square(x: Tensor) -> Tensor:
    """``√(1 + x²)``, whose square does not overflow either."""
    larger, smaller = x.abs().clamp(min=1), x.abs().clamp(max=1)
    return larger * (1 + (smaller / larger) ** 2).sqrt()
