"""Straight lines in a space of codes."""

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


def interpolations(encode: Map, decode: Map, images: Tensor, num_steps: int) -> dict[str, Tensor]:
    """Return ``x_t = Φ⁻¹((1 − t) Φ(x₀) + t Φ(x₁))`` for the pairs of images 0 and 1, 2 and 3, ….

    Args:
        encode, decode: Φ and Φ⁻¹, on batches.
        images: (B, C, *spatial); the last one of an odd number is left out.
        num_steps: number of equidistant t from 0 to 1, at least 2. The first and last x_t are x₀ and x₁ as the inverse
            recovers them.

    Returns:
        (num_steps, C, *spatial) by title, such as "0 → 1".
    """
    num_pairs = len(images) // 2
    first, last = encode(images[: 2 * num_pairs : 2]), encode(images[1::2])
    path = [decode(torch.lerp(first, last, t)) for t in torch.linspace(0, 1, num_steps).tolist()]
    return {f"{2 * i} → {2 * i + 1}": row for i, row in enumerate(torch.stack(path, dim=1))}
