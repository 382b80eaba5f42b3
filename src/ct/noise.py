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
    line_integrals: Array, photon_count: float | None, attenuation: float, rng: np.random.Generator
) -> Array:
    """Return line integrals estimated from photon counts, p̂ = −log(max(n, 1)/I₀)/μ, n ~ Poisson(I₀ exp(−μ p)).

    Args:
        line_integrals: p, of any shape, in lengths (half-widths of the cube) through material of attenuation 1.
        photon_count: I₀, the expected photons per pixel of the unattenuated beam; None or infinity adds no noise.
        attenuation: μ, the absorption per unit length of the material: exp(−μ) of the beam passes one half-width.

    Raises:
        ValueError: `photon_count` or `attenuation` is not positive.
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
    # A pixel that no photon reached is read as one photon: the estimate stays finite.
    estimate = np.maximum(counts, 1, out=expected)
    estimate /= photon_count
    np.log(estimate, out=estimate)
    estimate /= -attenuation
    return estimate
