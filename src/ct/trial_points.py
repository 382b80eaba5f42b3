"""Random points in a cylinder with their distances to the nearest ball or wall, kept up to date ball by ball."""

import numpy as np

from .geometry import Array

POINTS_PER_CELL = 128


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
            cylinder_radius - np.hypot(self.points[0], self.points[1]), cylinder_half_height - np.abs(self.points[2])
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
