"""Greedy placement of non-overlapping balls in a cylinder, the step that foam phantoms spend their time in.

A ball at point p may have the radius of p's clearance, the distance to the nearest obstacle:
min(min_j ‖p − c_j‖ − r_j, R − √(p_x² + p_y²), H − |p_z|). Pelt et al. (2018) keep the clearance of many random
trial points and put each new ball at the best of them. Two things make the same idea fast and dense here:
the points are stored by cell, so that a new ball updates only the cells that it can affect; and the chosen point
is only a start, from which the ball is moved to a locally best place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

POINTS_PER_CELL = 128
# Balls are shrunk by this much, so that touching neighbours do not overlap by a rounding error.
CONTACT_MARGIN = 1e-12


@dataclass(frozen=True)
class Obstacles:
    """What a ball in the foam must not cross: the balls so far, the cylinder's wall and its caps."""

    centres: Array  # (n, 3), as (x, y, z)
    radii: Array  # (n,)
    cylinder_radius: float
    cylinder_half_height: float

    @cached_property
    def _squared_distance_rows(self) -> Array:
        """Rows (−2 c, ‖c‖²), whose product with (p, 1) is ‖p − c‖² − ‖p‖²: (n, 4)."""
        rows = np.empty((len(self.radii), 4))
        np.multiply(self.centres, -2, out=rows[:, :3])
        np.einsum("nd,nd->n", self.centres, self.centres, out=rows[:, 3])
        return rows

    def gaps(self, points: Array) -> Array:
        """Return the signed distances of points (m, 3) to every ball, the wall and the nearer cap: (m, n + 2)."""
        # One obstacle after the other in memory, and returned transposed: the minimum over obstacles is vectorised.
        gaps = np.empty((len(self.radii) + 2, len(points)))
        balls = gaps[:-2]
        # ‖p − c‖² = ‖p‖² − 2 p·c + ‖c‖²: a matrix product is much faster than differences of all pairs.
        columns = np.ones((4, len(points)))
        columns[:3] = points.T
        np.matmul(self._squared_distance_rows, columns, out=balls)
        balls += np.einsum("md,md->m", points, points)
        np.maximum(balls, 0, out=balls)
        np.sqrt(balls, out=balls)
        balls -= self.radii[:, None]
        gaps[-2] = self.cylinder_radius - np.hypot(points[:, 0], points[:, 1])
        gaps[-1] = self.cylinder_half_height - np.abs(points[:, 2])
        return gaps.T

    def gaps_at(self, point: Array) -> Array:
        """Return the row of `gaps` of one point (3,), which costs less than a matrix of one row: (n + 2,)."""
        gaps = np.empty(len(self.radii) + 2)
        offsets = self.centres - point
        np.sqrt(np.einsum("nd,nd->n", offsets, offsets), out=gaps[:-2])
        gaps[:-2] -= self.radii
        x, y, z = point.tolist()
        gaps[-2] = self.cylinder_radius - math.hypot(x, y)
        gaps[-1] = self.cylinder_half_height - abs(z)
        return gaps

    def normals(self, point: Array, columns: NDArray[np.intp]) -> Array:
        """Return the gradients of the given columns of `gaps` at one point: (len(columns), 3)."""
        wall, cap = len(self.radii), len(self.radii) + 1
        away = np.zeros((len(columns), 3))
        for row, column in zip(away, columns.tolist(), strict=True):
            if column == wall:
                row[:2] = -point[:2]
            elif column == cap:
                row[2] = -1.0 if point[2] > 0 else 1.0
            else:
                np.subtract(point, self.centres[column], out=row)
        lengths = np.sqrt(np.einsum("md,md->m", away, away))
        away /= np.maximum(lengths, np.finfo(float).tiny)[:, None]
        return away

    def near(self, point: Array, reach: float) -> Obstacles:
        """Return the same cylinder with only the balls whose surface is closer than `reach` to the point."""
        offsets = self.centres - point
        close = np.flatnonzero(np.einsum("nd,nd->n", offsets, offsets) < (self.radii + reach) ** 2)
        return Obstacles(self.centres[close], self.radii[close], self.cylinder_radius, self.cylinder_half_height)


class TrialPoints:
    """Stratified random points in the cylinder's bounding box, each with its clearance, stored cell by cell.

    Clearances are capped at `max_radius`; this bounds the range within which a new ball can change one.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        cylinder_radius: float,
        cylinder_half_height: float,
        max_radius: float,
        num_points: int,
    ) -> None:
        self.max_radius = np.float32(max_radius)
        box = 2 * np.array([cylinder_radius, cylinder_radius, cylinder_half_height])
        cell_side = (box.prod() * POINTS_PER_CELL / num_points) ** (1 / 3)
        counts = np.maximum(1, np.round(box / cell_side)).astype(int)
        sides = box / counts
        # (3, cells): the centres of the cells of the box that reach into the cylinder
        centres = (np.indices(counts).reshape(3, -1) + 0.5) * sides[:, None] - box[:, None] / 2
        inside = np.hypot(centres[0], centres[1]) < cylinder_radius + np.hypot(sides[0], sides[1]) / 2
        self.cell_centres = centres[:, inside].astype(np.float32)
        self.cell_half_diagonal = float(np.linalg.norm(sides) / 2)
        # (3, cells, points per cell)
        self.points = rng.random((3, self.cell_centres.shape[1], POINTS_PER_CELL), dtype=np.float32)
        self.points -= np.float32(0.5)
        self.points *= sides.astype(np.float32)[:, None, None]
        self.points += self.cell_centres[:, :, None]
        self.clearance = np.minimum(
            cylinder_radius - np.hypot(self.points[0], self.points[1]),
            cylinder_half_height - np.abs(self.points[2]),
        )
        np.minimum(self.clearance, self.max_radius, out=self.clearance)
        self.largest = self.clearance.max(axis=1)  # (cells,)

    def best(self, rng: np.random.Generator) -> tuple[Array, float]:
        """Return the point of largest clearance, a random one if several reach the cap, and its clearance."""
        cell = self.largest.argmax()
        clearance = self.largest[cell]
        if clearance >= self.max_radius:
            cell = rng.choice(np.flatnonzero(self.largest >= self.max_radius))
            index = rng.choice(np.flatnonzero(self.clearance[cell] >= self.max_radius))
        else:
            index = self.clearance[cell].argmax()
        return self.points[:, cell, index].astype(np.float64), float(clearance)

    def add_ball(self, centre: Array, radius: float) -> None:
        """Lower the clearances to the distance from a new ball, in the cells where that can change one."""
        x, y, z = self.cell_centres - centre.astype(np.float32)[:, None]
        reach = self.largest + np.float32(radius + self.cell_half_diagonal)
        cells = np.flatnonzero(x * x + y * y + z * z < reach * reach)
        x, y, z = (u[cells] - v for u, v in zip(self.points, centre.astype(np.float32), strict=True))
        distance = np.sqrt(x * x + y * y + z * z)
        distance -= np.float32(radius)
        np.minimum(distance, self.clearance[cells], out=distance)
        self.clearance[cells] = distance
        self.largest[cells] = distance.max(axis=1)


def enlarge(obstacles: Obstacles, start: Array, step: float, rng: np.random.Generator) -> Array:
    """Move a point (3,) to a locally largest clearance: the centre of a ball that touches four obstacles.

    A random search over a shrinking cube is followed by Newton steps on gap_j(p) = ρ for the four nearest
    obstacles j, with the unknowns p and ρ; a step is kept only if it raises the clearance.
    """
    point = _random_search(obstacles, start, step, rng, _clearance, num_rounds=4, num_samples=40, decay=0.5)
    gaps = obstacles.gaps_at(point)
    for _ in range(3):
        nearest = _nearest(gaps, 4)
        system = np.full((len(nearest), 4), -1.0)
        system[:, :3] = obstacles.normals(point, nearest)
        shift = _solve(system, -gaps[nearest])[:3]
        if math.sqrt(shift @ shift) > step:
            break
        moved = point + shift
        moved_gaps = obstacles.gaps_at(moved)
        if moved_gaps.min() <= gaps.min():
            break
        point, gaps = moved, moved_gaps
    return point


def settle(obstacles: Obstacles, start: Array, radius: float, step: float, rng: np.random.Generator) -> Array:
    """Move the centre (3,) of a ball that fits with room to spare into a nearby pocket where it touches three.

    The random search lowers the sum of the three smallest gaps, keeping the ball free; Newton steps on
    gap_j(p) = radius for these three close the rest. Large balls that touch leave more room for others.
    """

    def snugness(gaps: Array) -> Array:
        spare = np.partition(gaps, min(2, gaps.shape[1] - 1), axis=1)[:, :3].sum(axis=1)
        return np.where(_clearance(gaps) >= radius, -spare, -np.inf)

    point = _random_search(obstacles, start, step, rng, snugness, num_rounds=24, num_samples=160, decay=0.8)
    gaps = obstacles.gaps_at(point)
    for _ in range(3):
        nearest = _nearest(gaps, 3)
        normals = obstacles.normals(point, nearest)
        shift = _solve(normals, radius - gaps[nearest])
        if math.sqrt(shift @ shift) > radius / 4:
            break
        moved = point + shift
        moved_gaps = obstacles.gaps_at(moved)
        # A small overlap is what the next step removes; a large one means that there is no such pocket here.
        if moved_gaps.min() < 0.99 * radius:
            break
        point, gaps = moved, moved_gaps
    return point


def _solve(system: Array, values: Array) -> NDArray[np.floating]:
    """Return the solution, of the smallest norm where there are several, of least squares where there is none."""
    if len(system) == system.shape[1]:
        with suppress(np.linalg.LinAlgError):
            return np.linalg.solve(system, values)
    return np.linalg.lstsq(system, values, rcond=None)[0]


def _clearance(gaps: Array) -> Array:
    return gaps.min(axis=1)


def _nearest(gaps: Array, count: int) -> NDArray[np.intp]:
    count = min(count, len(gaps))
    return np.argpartition(gaps, count - 1)[:count]


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
        rng: source of all randomness.
        cylinder_radius, cylinder_half_height: the container, centred at the origin with its axis along z.
        num_balls: the number to place; fewer come back if no room for a ball above `min_radius` is left.
        max_radius, min_radius: bounds of the balls' radii, in the unit of the cylinder's.
        num_trial_points: trial points in the cylinder's bounding box; more find better places.

    Returns:
        Centres (n, 3) as (x, y, z) and radii (n,), in the order of placement. No two balls overlap, and none
        crosses the wall or a cap.

    Source: the greedy scheme of Pelt, Batenburg, Sethian: Improving tomographic reconstruction from limited data
    using mixed-scale dense convolutional neural networks, J. Imaging 4 (2018).
    """
    trial_points = TrialPoints(rng, cylinder_radius, cylinder_half_height, max_radius, num_trial_points)
    centres, radii = np.empty((num_balls, 3)), np.empty(num_balls)
    for n in range(num_balls):
        start, clearance = trial_points.best(rng)
        placed = Obstacles(centres[:n], radii[:n], cylinder_radius, cylinder_half_height)
        if clearance >= trial_points.max_radius:
            step = 3 * max_radius
            reach = max_radius + 2 * 3**0.5 * step  # all that a ball can meet on its way
            near = placed.near(start, reach)
            point = settle(near, start, max_radius, step, rng)
        else:
            step = trial_points.cell_half_diagonal
            reach = clearance + 2 * step  # all that it meets unless it wanders unusually far
            near = placed.near(start, reach)
            point = enlarge(near, start, step, rng)
        room = near.gaps_at(point).min()
        if room > reach - math.dist(point, start):  # then a ball that is not near may be nearer
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
