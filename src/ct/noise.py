"""Poisson noise of a photon-counting detector."""

import math

import numpy as np

from .geometry import Array


def check_photon_count(photon_count: float | None) -> None:
    """Raise ValueError unless the count is positive (or None, for a measurement without noise)."""
    if photon_count is not None and not photon_count > 0:
        raise ValueError(f"expected a positive photon_count, or None for no noise, got {photon_count}")


def check_attenuation(attenuation: float) -> None:
    """Raise ValueError unless the attenuation is positive and finite."""
    if not 0 < attenuation < math.inf:
        raise ValueError(f"expected a positive, finite attenuation, got {attenuation}")


def add_poisson_noise(
    line_integrals: Array,
    photon_count: float | None,
    attenuation: float,
    rng: np.random.Generator,
    least_count: float = 1.0,
) -> Array:
    """Return line integrals estimated from photon counts, p̂ = −log(max(n, n₀)/I₀)/μ, n ~ Poisson(I₀ exp(−μ p)).

    Args:
        line_integrals: p, of any shape, in lengths (half-widths of the cube) through material of attenuation 1.
        photon_count: I₀, the expected photons per pixel of the unattenuated beam; None or infinity adds no noise.
        attenuation: μ, the absorption per unit length of the material: exp(−μ) of the beam passes one half-width.
        least_count: n₀, what is read where no photon arrived, so that the estimate is finite.
        rng: source of the counts.

    Raises:
        ValueError: `photon_count` or `attenuation` is not positive.

    Example:
        >>> noisy = add_poisson_noise(np.ones((4, 8, 8)), 500, attenuation=1.0, rng=np.random.default_rng(0))
        >>> noisy.shape, bool(abs(noisy.mean() - 1) < 0.05)
        ((4, 8, 8), True)
    """
    check_photon_count(photon_count)
    check_attenuation(attenuation)
    if photon_count is None or math.isinf(photon_count):
        return line_integrals
    # In place: at the paper's size each array has 75 million pixels, and fresh memory costs more than the arithmetic.
    expected = np.multiply(line_integrals, -attenuation)
    np.exp(expected, out=expected)
    expected *= photon_count
    counts = rng.poisson(expected)
    estimate = np.maximum(counts, least_count, out=expected)
    estimate /= photon_count
    np.log(estimate, out=estimate)
    estimate /= -attenuation
    return estimate
