"""Distances of points to the balls, the wall and the caps of a cylinder of foam."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .geometry import Array


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
