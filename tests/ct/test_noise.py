import math

import numpy as np
import pytest

from src.ct.noise import add_poisson_noise


def test_mean_and_variance_of_the_counts():
    integrals = np.full(200_000, 0.7)
    noisy = add_poisson_noise(integrals, 1000, 1.5, np.random.default_rng(0))
    counts = 1000 * np.exp(-1.5 * noisy)
    expected = 1000 * math.exp(-1.05)
    # five standard errors: of the mean sqrt(λ/n), of the variance about λ sqrt(2/n)
    assert counts.mean() == pytest.approx(expected, abs=5 * math.sqrt(expected / 200_000))
    assert counts.var() == pytest.approx(expected, rel=5 * math.sqrt(2 / 200_000))
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-9)


def test_estimate_spreads_as_the_delta_method_says():
    integrals = np.full(100_000, 1.2)
    noisy = add_poisson_noise(integrals, 1e5, 0.8, np.random.default_rng(0))
    assert noisy.mean() == pytest.approx(1.2, abs=1e-4)
    assert noisy.std() == pytest.approx(1 / (0.8 * math.sqrt(1e5 * math.exp(-0.96))), rel=0.02)


@pytest.mark.parametrize("photon_count", [None, math.inf])
def test_without_noise(photon_count):
    integrals = np.linspace(0, 2, 5)
    result = add_poisson_noise(integrals, photon_count, 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(result, integrals)


def test_no_photons_at_all_stay_finite():
    noisy = add_poisson_noise(np.full(100, 50.0), 10, 1.0, np.random.default_rng(0))
    np.testing.assert_allclose(noisy, math.log(10))


def test_seeded():
    def noisy(seed):
        return add_poisson_noise(np.ones(50), 100, 1.0, np.random.default_rng(seed))

    np.testing.assert_array_equal(noisy(1), noisy(1))
    assert not np.array_equal(noisy(1), noisy(2))


@pytest.mark.parametrize("photon_count", [0, -5, math.nan])
def test_photon_count_must_be_positive(photon_count):
    with pytest.raises(ValueError, match=r"positive photon_count.*got"):
        add_poisson_noise(np.ones(3), photon_count, 1.0, np.random.default_rng(0))


@pytest.mark.parametrize("attenuation", [0, -1, math.inf, math.nan])
def test_attenuation_must_be_positive(attenuation):
    with pytest.raises(ValueError, match="positive, finite attenuation, got"):
        add_poisson_noise(np.ones(3), 100, attenuation, np.random.default_rng(0))
