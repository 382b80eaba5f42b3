"""Who looks at the operations of a pass besides autograd, and operations that ONNX knows."""

import torch
from torch import Tensor

_DOUBLINGS = 32  # of the inverse's digits: for norms up to 10⁴


def is_exporting() -> bool:
    """Whether the operations of a forward pass are recorded to be run elsewhere.

    The recorded program has no backward pass of ours: backprop policies do not apply to it.

    Example:
        >>> is_exporting()
        False
    """
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def under_torch_func() -> bool:
    """Whether a transform of `torch.func` runs; True if this version of torch does not tell."""
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    return active is None or active()


def needs_plain_operations() -> bool:
    """Whether a compiler, an exporter or a transform of `torch.func` looks, which know torch's own operations only."""
    return torch.compiler.is_compiling() or is_exporting() or under_torch_func()


def cayley_transform(theta: Tensor) -> Tensor:
    """``(I + S)⁻¹ (I − S) = (I − S)² M⁻¹`` with ``S = θ − θᵀ``, where ``M = I − S²`` is positive definite: by
    Newton–Schulz steps ``X ← X (2I − M X)``."""
    skew = _skew(theta)
    identity = _identity(skew)
    m = identity - skew @ skew
    inverse = identity / m.abs().sum(-1).amax(-1)[..., None, None]
    for _ in range(_DOUBLINGS):
        inverse = inverse @ (2 * identity - m @ inverse)
    return ((identity - skew) @ (identity - skew) @ inverse).to(theta.dtype)


def root_of_one_plus_square(x: Tensor) -> Tensor:
    """``√(1 + x²)``, whose square does not overflow either."""
    larger, smaller = x.abs().clamp(min=1), x.abs().clamp(max=1)
    return larger * (1 + (smaller / larger) ** 2).sqrt()


def _skew(theta: Tensor) -> Tensor:
    theta = theta.double()
    return theta - theta.transpose(-2, -1)


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)
