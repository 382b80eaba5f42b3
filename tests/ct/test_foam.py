import numpy as np
import pytest

from src.ct.foam import FoamPhantom, FoamSpec, draw_foam

SPEC = FoamSpec(num_balls=(5, 12), num_trial_points=5_000)


def test_draws_within_the_ranges_and_from_the_seed_alone():
    for seed in range(10):
        phantom = draw_foam(SPEC, np.random.default_rng(seed))
        again = draw_foam(SPEC, np.random.default_rng(seed))
        assert 5 <= len(phantom.radii) <= 12
        assert SPEC.radius[0] <= phantom.radius <= SPEC.radius[1]
        assert SPEC.half_height[0] <= phantom.half_height <= SPEC.half_height[1]
        np.testing.assert_array_equal(phantom.centres, again.centres)
    assert len({draw_foam(SPEC, np.random.default_rng(seed)).radius for seed in range(10)}) == 10


def test_both_ends_of_the_ball_range_are_drawn():
    spec = FoamSpec(num_balls=(2, 3), num_trial_points=2_000)
    assert {len(draw_foam(spec, np.random.default_rng(seed)).radii) for seed in range(20)} == {2, 3}


def test_porosity_is_the_share_of_the_volume():
    phantom = FoamPhantom(0.5, 0.25, np.zeros((2, 3)), np.array([0.1, 0.2]))
    volume = 4 / 3 * np.pi * (0.1**3 + 0.2**3)
    assert phantom.porosity == pytest.approx(volume / (np.pi * 0.25 * 0.5), rel=1e-14)


def test_arrays_and_back(tmp_path):
    phantom = draw_foam(SPEC, np.random.default_rng(0))
    np.savez(tmp_path / "phantom.npz", **phantom.to_arrays())
    with np.load(tmp_path / "phantom.npz") as file:
        loaded = FoamPhantom.from_arrays(file)
    assert (loaded.radius, loaded.half_height) == (phantom.radius, phantom.half_height)
    np.testing.assert_array_equal(loaded.centres, phantom.centres)
    np.testing.assert_array_equal(loaded.radii, phantom.radii)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_balls": (5, 4)}, r"num_balls to be a range with 0 < low <= high, got \[5, 4\]"),
        ({"num_balls": (0, 4)}, "num_balls"),
        ({"radius": (0.8, 0.5)}, "radius to be a range"),
        ({"half_height": (-0.1, 0.5)}, "half_height to be a range"),
        ({"radius": (0.8, 1.2)}, r"radius to be at most 1.*got 1\.2"),
        ({"half_height": (0.8, 1.01)}, "half_height to be at most 1"),
        ({"min_radius": 0.3, "max_radius": 0.2}, "min_radius=0.3, max_radius=0.2"),
        ({"min_radius": -0.1}, "0 <= min_radius"),
        ({"num_trial_points": 0}, "num_trial_points >= 1, got 0"),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FoamSpec(**arguments)
