"""Straight lines in a space of codes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def interpolate(
    encode: Callable[[Tensor], Tensor], decode: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, num_steps: int
) -> Tensor:
    """Return ``x_t = Φ⁻¹((1 − t) Φ(x₀) + t Φ(x₁))`` for ``num_steps`` equidistant t from 0 to 1.

    Args:
        encode, decode: Φ and Φ⁻¹, on batches.
        start: x₀ of shape (B, C, *spatial).
        end: x₁, same shape.
        num_steps: at least 2; the first and last are x₀ and x₁ as the inverse gives them back.

    Returns:
        shape (B, num_steps, C, *spatial).
    """
    first, last = encode(start), encode(end)
    path = [decode(torch.lerp(first, last, t)) for t in torch.linspace(0, 1, num_steps).tolist()]
    return torch.stack(path, dim=1)
