import dataclasses

import numpy as np
import pytest

from src.ct.fbp import FILTERS
from src.ct.foam import FoamSpec
from src.ct.geometry import CUBE_DIAGONAL
from src.ct.simulation import ScanSpec, SimulationSpec, simulate

FOAM = FoamSpec(num_balls=(5, 8), num_trial_points=2_000)
SCAN = ScanSpec(size=12, num_views=6)


def run(seed=0, **scan):
    return simulate(SimulationSpec(FOAM, dataclasses.replace(SCAN, **scan)), seed)


def error(result):
    return float(np.sqrt(np.mean((result.fbp - result.truth) ** 2)))


def test_shapes_types_and_determinism():
    first, second, other = run(1), run(1), run(2)
    for volume in (first.truth, first.fbp):
        assert volume.shape == (12, 12, 12) and volume.dtype == np.float32
    assert first.truth.min() >= 0 and first.truth.max() <= 1
    np.testing.assert_array_equal(first.fbp, second.fbp)
    np.testing.assert_array_equal(first.truth, second.truth)
    assert not np.array_equal(first.truth, other.truth)


def test_many_views_without_noise_reconstruct_the_truth():
    sharp = run(num_views=60, photon_count=None, detector_oversampling=4)
    assert error(sharp) < 0.05
    assert error(run(num_views=60, photon_count=20.0)) > 2 * error(sharp)
    assert error(run(num_views=5, photon_count=None)) > 2 * error(sharp)


def test_axis_is_the_diagonal_up_to_the_noise():
    diagonal = np.array(CUBE_DIAGONAL) / 3**0.5
    np.testing.assert_allclose(run(axis_noise_deg=0).geometry.axis, diagonal, atol=1e-15)
    tilts_deg = [np.rad2deg(np.arccos(run(seed, axis_noise_deg=5.0).geometry.axis @ diagonal)) for seed in range(20)]
    assert 3 < np.sqrt(np.mean(np.square(tilts_deg))) < 8


def test_detector_covers_the_cube_with_pixels_of_the_size_of_fbp_voxels():
    assert SCAN.detector_pixels == 42  # ceil(sqrt(3) · 24)
    assert run().geometry.pixel_size <= 2 / 24
    assert run(detector_size=17).geometry.detector_size == 17


@pytest.mark.parametrize("filter_name", FILTERS)
def test_every_filter_runs(filter_name):
    result = run(fbp_filter=filter_name)
    assert np.isfinite(result.fbp).all()
    assert filter_name == "ramp" or not np.array_equal(result.fbp, run().fbp)


def test_oversampling_factors():
    plain = run(fbp_oversampling=1, truth_oversampling=1)
    assert plain.fbp.shape == plain.truth.shape == (12, 12, 12)
    assert set(np.unique(plain.truth)) == {0.0, 1.0}
    assert len(np.unique(run().truth)) > 2


@pytest.mark.gpu
def test_gpu_agrees_with_cpu():
    spec = SimulationSpec(FOAM, SCAN)
    on_cpu, on_gpu = simulate(spec, 0), simulate(spec, 0, "cuda")
    np.testing.assert_array_equal(on_gpu.truth, on_cpu.truth)
    np.testing.assert_allclose(on_gpu.fbp, on_cpu.fbp, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size >= 1, got 0"),
        ({"num_views": 0}, "num_views >= 1, got 0"),
        ({"photon_count": 0}, "positive photon_count.*got 0"),
        ({"attenuation": -1.0}, "attenuation, got -1"),
        ({"axis_noise_deg": -1.0}, r"axis_noise_deg in \[0, 90\), got -1"),
        ({"axis_noise_deg": float("nan")}, "axis_noise_deg"),
        ({"fbp_filter": "gauss"}, "got 'gauss'"),
        ({"detector_size": 0}, "detector_size >= 1, got 0"),
        ({"detector_oversampling": 0}, "detector_oversampling"),
        ({"fbp_oversampling": 0}, "fbp_oversampling"),
        ({"truth_oversampling": -2}, "truth_oversampling"),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScanSpec(**arguments)
