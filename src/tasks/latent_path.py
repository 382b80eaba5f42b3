"""Paths between codes."""

from collections.abc import Callable

import torch
from torch import Tensor

from src.invertible.arguments import check_choice

Map = Callable[[Tensor], Tensor]


def interpolations(
    encode: Map, decode: Map, images: Tensor, num_steps: int, path: str = "straight"
) -> dict[str, Tensor]:
    """Return ``x_t = Φ⁻¹(z_t)`` on the path from ``Φ(x₀)`` to ``Φ(x₁)``, for the pairs of images 0 and 1, 2 and 3, ….

    Args:
        encode, decode: Φ and Φ⁻¹, on batches.
        images: (B, C, *spatial); the last one of an odd number is left out.
        num_steps: number of equidistant t from 0 to 1, at least 2. The first and last x_t are x₀ and x₁ as the inverse
            recovers them.
        path: "straight" or "spherical", see the functions.

    Returns:
        (num_steps, C, *spatial) by title, such as "0 → 1".

    Raises:
        ValueError: for an unknown path.
    """
    check_path(path)
    num_pairs = len(images) // 2
    first, last = encode(images[: 2 * num_pairs : 2]), encode(images[1::2])
    points = [decode(PATHS[path](first, last, t)) for t in torch.linspace(0, 1, num_steps).tolist()]
    return {f"{2 * i} → {2 * i + 1}": row for i, row in enumerate(torch.stack(points, dim=1))}


def straight(first: Tensor, last: Tensor, t: float) -> Tensor:
    """Return ``z_t = (1 − t) z₀ + t z₁``.

    Between two normal latents of many dimensions, which have nearly the same length and a right angle, the middle is
    shorter than they are by a factor of √2.
    """
    return torch.lerp(first, last, t)


def spherical(first: Tensor, last: Tensor, t: float) -> Tensor:
    """Return ``z_t = sin((1 − t) ω) / sin ω · z₀ + sin(t ω) / sin ω · z₁`` for the angle ω of each pair (B, …).

    Latents of equal length keep it on the way. Where ω is 0 or π, no such path is defined, and it is straight.
    Source: Shoemake, Animating Rotation with Quaternion Curves (1985); for latents, White, Sampling Generative Networks
    (2016).
    """
    dims = tuple(range(1, first.ndim))
    lengths = first.square().sum(dims, keepdim=True).sqrt() * last.square().sum(dims, keepdim=True).sqrt()
    cosine = (first * last).sum(dims, keepdim=True) / lengths
    angle = cosine.clamp(-1, 1).acos()
    path = (((1 - t) * angle).sin() * first + (t * angle).sin() * last) / angle.sin()
    # In single precision, a cosine this near 1 may be that of parallel latents.
    return torch.where(cosine.abs() < 1 - 1e-6, path, straight(first, last, t))


PATHS = {"straight": straight, "spherical": spherical}


def check_path(path: str) -> None:
    """Raise ValueError for an unknown path."""
    check_choice("path", path, PATHS)
