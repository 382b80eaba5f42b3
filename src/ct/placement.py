"""Greedy placement of non-overlapping balls in a cylinder, which takes most of the time to draw a foam phantom.

A ball at point p may have the radius of p's clearance, the distance to the nearest obstacle:
min(min_j ‖p − c_j‖ − r_j, R − √(p_x² + p_y²), H − |p_z|). Pelt et al. (2018) keep the clearances of many random
trial points and put each new ball at the best of them. Two changes make this faster and the foam denser:
the points are stored by cell, so that a new ball updates only the cells that it can affect; and the ball is moved
from the chosen point to a locally best place.
"""

import math
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from .geometry import Array
from .obstacles import Obstacles
from .trial_points import TrialPoints

# Balls are shrunk by this much, so that touching neighbours do not overlap by a rounding error.
CONTACT_MARGIN = 1e-12


def place_balls(
    rng: np.random.Generator,
    cylinder_radius: float,
    cylinder_half_height: float,
    num_balls: int,
    max_radius: float,
    min_radius: float = 0.0,
    num_trial_points: int = 1_500_000,
) -> tuple[Array, Array]:
    """Place up to `num_balls` balls, always the largest that is found to fit, capped by `max_radius`.

    Args:
        rng: source of the trial points.
        cylinder_radius, cylinder_half_height: the container, centred at the origin with its axis along z.
        num_balls: the number to place; fewer are returned if there is no room left for a ball above `min_radius`.
        max_radius, min_radius: bounds of the balls' radii, in the unit of the cylinder's.
        num_trial_points: in the cylinder's bounding box; more of them find better places.

    Returns:
        Centres (n, 3) as (x, y, z) and radii (n,), in the order of placement. No two balls overlap, and none
        crosses the wall or a cap.

    Source: the greedy scheme of Pelt, Batenburg, Sethian: Improving tomographic reconstruction from limited data
    using mixed-scale dense convolutional neural networks, J. Imaging 4 (2018).

    Example:
        >>> centres, radii = place_balls(np.random.default_rng(0), 0.8, 0.8, 2, max_radius=0.3, num_trial_points=1000)
        >>> radii
        array([0.3, 0.3])
    """
    trial_points = TrialPoints(rng, cylinder_radius, cylinder_half_height, max_radius, num_trial_points)
    centres, radii = np.empty((num_balls, 3)), np.empty(num_balls)
    for n in range(num_balls):
        start, clearance = trial_points.best(rng)
        placed = Obstacles(centres[:n], radii[:n], cylinder_radius, cylinder_half_height)
        if clearance >= trial_points.max_radius:
            step = 3 * max_radius
            reach = max_radius + 2 * 3**0.5 * step  # everything that the ball can meet
            near = placed.near(start, reach)
            point = settle(near, start, max_radius, step, rng)
        else:
            step = trial_points.cell_half_diagonal
            reach = clearance + 2 * step  # everything that it meets, unless it moves unusually far
            near = placed.near(start, reach)
            point = enlarge(near, start, step, rng)
        room = near.gaps_at(point).min()
        if room > reach - math.dist(point, start):  # then a ball outside the reach may be closer
            room = placed.gaps_at(point).min()
        if room < 0.99 * clearance:
            point = start
            room = placed.gaps_at(point).min()
        centres[n] = point
        radii[n] = min(max_radius, room - CONTACT_MARGIN)
        if radii[n] <= min_radius:
            return centres[:n], radii[:n]
        trial_points.add_ball(point, radii[n])
    return centres, radii


def enlarge(obstacles: Obstacles, start: Array, step: float, rng: np.random.Generator) -> Array:
    """Move a point (3,) to a locally largest clearance: the centre of a ball that touches four obstacles.

    A random search over a shrinking cube is followed by Newton steps on gap_j(p) = ρ for the four nearest
    obstacles j, with the unknowns p and ρ; a step is kept only if it raises the clearance.
    """

    def shift(normals: Array, gaps: Array) -> NDArray[np.floating]:
        return _solve(np.column_stack([normals, np.full(len(normals), -1.0)]), -gaps)[:3]

    point = _random_search(obstacles, start, step, rng, _clearance, num_rounds=4, num_samples=40, decay=0.5)
    return _newton(obstacles, point, shift, num_touched=4, longest=step, accepts=lambda before, after: after > before)


def settle(obstacles: Obstacles, start: Array, radius: float, step: float, rng: np.random.Generator) -> Array:
    """Move the centre (3,) of a ball that fits with room to spare into a nearby pocket where it touches three.

    The random search lowers the sum of the three smallest gaps while the ball stays free. Newton steps on
    gap_j(p) = radius close these three gaps. Large balls that touch leave more room for others.
    """

    def snugness(gaps: Array) -> Array:
        spare = np.partition(gaps, min(2, gaps.shape[1] - 1), axis=1)[:, :3].sum(axis=1)
        return np.where(_clearance(gaps) >= radius, -spare, -np.inf)

    def shift(normals: Array, gaps: Array) -> NDArray[np.floating]:
        return _solve(normals, radius - gaps)

    point = _random_search(obstacles, start, step, rng, snugness, num_rounds=24, num_samples=160, decay=0.8)
    # The next step removes a small overlap. A large one means that there is no such pocket here.
    return _newton(
        obstacles, point, shift, num_touched=3, longest=radius / 4, accepts=lambda _, after: after >= 0.99 * radius
    )


def _newton(
    obstacles: Obstacles,
    point: Array,
    shift: Callable[[Array, Array], NDArray[np.floating]],
    *,
    num_touched: int,
    longest: float,
    accepts: Callable[[float, float], bool],
) -> Array:
    """Move by shift(normals, gaps) of the nearest obstacles while shifts are short and the clearance is accepted."""
    gaps = obstacles.gaps_at(point)
    for _ in range(3):
        count = min(num_touched, len(gaps))
        nearest = np.argpartition(gaps, count - 1)[:count]
        move = shift(obstacles.normals(point, nearest), gaps[nearest])
        if math.sqrt(move @ move) > longest:
            break
        moved_gaps = obstacles.gaps_at(point + move)
        if not accepts(gaps.min(), moved_gaps.min()):
            break
        point, gaps = point + move, moved_gaps
    return point


def _solve(system: Array, values: Array) -> NDArray[np.floating]:
    """Return the solution, of the smallest norm where there are several, of least squares where there is none."""
    if len(system) == system.shape[1]:
        with suppress(np.linalg.LinAlgError):
            return np.linalg.solve(system, values)
    return np.linalg.lstsq(system, values, rcond=None)[0]


def _clearance(gaps: Array) -> Array:
    return gaps.min(axis=1)


def _random_search(
    obstacles: Obstacles,
    start: Array,
    step: float,
    rng: np.random.Generator,
    score: Callable[[Array], Array],
    *,
    num_rounds: int,
    num_samples: int,
    decay: float,
) -> Array:
    """Return the point of highest score(gaps) among random ones in a shrinking cube around the best.

    It is at most 2·step from the start along each coordinate.
    """
    point = start
    low, high = start - 2 * step, start + 2 * step
    for samples in rng.uniform(-1, 1, size=(num_rounds, num_samples, 3)):
        samples *= step
        samples += point
        samples[0] = point
        np.maximum(samples, low, out=samples)
        np.minimum(samples, high, out=samples)
        point = samples[score(obstacles.gaps(samples)).argmax()]
        step *= decay
    return point
