import numpy as np
import pytest

from src.ct.obstacles import Obstacles
from src.ct.placement import CONTACT_MARGIN, enlarge, place_balls, settle

RADIUS, HALF_HEIGHT = 0.8, 0.6


def place(seed=0, num_balls=150, **kwargs):
    kwargs = {"max_radius": 0.15, "num_trial_points": 50_000, **kwargs}
    return place_balls(np.random.default_rng(seed), RADIUS, HALF_HEIGHT, num_balls, **kwargs)


def pair_gaps(centres, radii):
    distances = np.sqrt(((centres[:, None] - centres) ** 2).sum(axis=-1))
    return (distances - radii[:, None] - radii)[np.triu_indices(len(radii), k=1)]


@pytest.mark.parametrize("seed", range(5))
def test_no_ball_overlaps_another_or_crosses_wall_or_caps(seed):
    centres, radii = place(seed)
    assert len(radii) == 150
    assert pair_gaps(centres, radii).min() >= 0
    assert (RADIUS - np.hypot(centres[:, 0], centres[:, 1]) - radii).min() >= 0
    assert (HALF_HEIGHT - np.abs(centres[:, 2]) - radii).min() >= 0
    assert radii.max() <= 0.15
    assert radii.min() > 0


def test_same_seed_same_balls_and_other_seed_others():
    np.testing.assert_array_equal(place(3)[0], place(3)[0])
    assert not np.array_equal(place(3)[0], place(4)[0])


def test_balls_touch_their_neighbours():
    # A ball that was moved to a locally largest clearance touches four obstacles, a settled one three.
    centres, radii = place()
    gaps = Obstacles(centres, radii, RADIUS, HALF_HEIGHT).gaps(centres)
    third_gaps = []
    for n in range(1, len(radii)):
        earlier = np.sort(np.append(gaps[n, :n], gaps[n, -2:])) - radii[n]
        assert radii[n] > 0.149 or earlier[0] < 1e-9
        third_gaps.append(earlier[2])
    assert np.mean(np.array(third_gaps) < 1e-6) > 0.8


def test_stops_with_fewer_balls_when_no_room_above_min_radius_is_left():
    _, radii = place(num_balls=10_000, min_radius=0.05)
    assert 100 < len(radii) < 10_000
    assert radii.min() > 0.05
    assert place(num_balls=5, max_radius=0.9, min_radius=0.7)[1].size == 0


def test_fraction_is_at_least_that_of_foam_ct_phantom():
    # foam_ct_phantom, genphantom(seed, nspheres_per_unit=1000/1.5), seeds 1, 2, 3: 0.6595, 0.6608, 0.6571 of the
    # cylinder's volume is covered; its balls may cross the caps, and what lies outside does not count.
    _, radii = place_balls(np.random.default_rng(1), 1.0, 1.5, 1000, max_radius=0.2)
    assert len(radii) == 1000
    assert 4 / 3 * (radii**3).sum() / 3 > 0.69


def test_gaps_and_their_normals():
    obstacles = Obstacles(np.array([[0.1, 0.2, -0.1], [-0.3, 0.0, 0.2]]), np.array([0.1, 0.2]), 1.0, 0.5)
    point = np.array([0.3, -0.4, 0.25])
    gaps = obstacles.gaps(point[None])[0]
    expected = [
        np.sqrt(0.04 + 0.36 + 0.1225) - 0.1,
        np.sqrt(0.36 + 0.16 + 0.0025) - 0.2,
        1 - 0.5,
        0.5 - 0.25,
    ]
    np.testing.assert_allclose(gaps, expected, atol=1e-14)
    np.testing.assert_allclose(obstacles.gaps_at(point), expected, atol=1e-15)
    step = 1e-6
    numeric = [
        (obstacles.gaps(point[None] + step * e) - obstacles.gaps(point[None] - step * e))[0] / (2 * step)
        for e in np.eye(3)
    ]
    np.testing.assert_allclose(obstacles.normals(point, np.arange(4)), np.transpose(numeric), atol=1e-9)


def test_near_keeps_the_balls_within_reach():
    obstacles = Obstacles(np.array([[0.0, 0, 0], [0.5, 0, 0]]), np.array([0.1, 0.1]), 1.0, 1.0)
    assert len(obstacles.near(np.array([0.2, 0, 0]), 0.15).radii) == 1
    assert len(obstacles.near(np.array([0.2, 0, 0]), 0.25).radii) == 2


def test_enlarge_finds_the_ball_inscribed_in_a_cylinder():
    empty = Obstacles(np.empty((0, 3)), np.empty(0), 0.3, 1.0)
    start = np.array([0.05, -0.06, 0.1])
    point = enlarge(empty, start, 0.2, np.random.default_rng(0))
    assert empty.gaps(point[None]).min() > 0.28 > empty.gaps(start[None]).min()


def test_settle_moves_a_ball_against_its_neighbours():
    obstacles = Obstacles(np.array([[0.0, 0, 0]]), np.array([0.2]), 1.0, 1.0)
    start = np.array([0.35, 0.2, 0.4])
    point = settle(obstacles, start, 0.1, 0.3, np.random.default_rng(0))
    assert obstacles.gaps(point[None]).min() == pytest.approx(0.1, abs=1e-3)
    assert CONTACT_MARGIN < 1e-9
