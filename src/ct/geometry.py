"""Parallel-beam geometry about an arbitrary axis.

The scan's cube is [−1, 1]³ and vectors are (x, y, z). A right-handed orthonormal frame (u, v, axis) turns with
the view: at angle φ the detector's horizontal coordinate is s = p·e(φ), e(φ) = cos φ u + sin φ v, its vertical
coordinate is t = p·axis, and rays run along d(φ) = −sin φ u + cos φ v. Projections are arrays (view, t, s).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..invertible.arguments import check_positive

Array = NDArray[np.float64]

CUBE_DIAGONAL = (1.0, 1.0, 1.0)
"""The rotation axis of the iUNet paper as (x, y, z), of any length: a diagonal of the cube.

Example:
    >>> CUBE_DIAGONAL
    (1.0, 1.0, 1.0)
"""
# The projection of the cube [−1, 1]³ along any direction lies within this distance of the origin's.
DETECTOR_HALF_WIDTH = 3**0.5


def grid_centres(size: int, half_width: float = 1.0) -> Array:
    """Return the centres ((2i + 1)/size − 1)·half_width of `size` equal cells of [−half_width, half_width]."""
    return ((2 * np.arange(size) + 1) / size - 1) * half_width


def tilted_axis(axis: tuple[float, float, float], tilt_deg: float, azimuth_rad: float) -> Array:
    """Return the unit vector at `tilt_deg` from `axis`, in the direction `azimuth_rad` around it: (3,).

    Args:
        axis: (x, y, z), of any length.
        tilt_deg: angle between both axes, in degrees.
        azimuth_rad: of the tilt, in radians.

    Example:
        >>> tilted_axis((0, 0, 1), tilt_deg=90, azimuth_rad=0).round(6)
        array([1., 0., 0.])
    """
    u, v, unit_axis = _frame(np.asarray(axis, dtype=float))
    tilt_rad = np.deg2rad(tilt_deg)
    sideways = np.cos(azimuth_rad) * u + np.sin(azimuth_rad) * v
    return np.cos(tilt_rad) * unit_axis + np.sin(tilt_rad) * sideways


def _frame(axis: Array) -> tuple[Array, Array, Array]:
    """Return (u, v, unit axis); u is the projection of the coordinate axis that is most orthogonal to `axis`."""
    unit_axis = axis / np.linalg.norm(axis)
    u = np.zeros(3)
    u[np.abs(unit_axis).argmin()] = 1
    u -= (u @ unit_axis) * unit_axis
    u /= np.linalg.norm(u)
    return u, np.cross(unit_axis, u), unit_axis


@dataclass(frozen=True, eq=False)
class ParallelBeam:
    """Views equispaced over half a turn, φ_i = π i / num_views, on a square detector that covers the cube.

    Attributes:
        axis: of the rotation, (3,); of any length, stored as a unit vector.
        num_views: number of views.
        detector_size: pixels per side.

    Raises:
        ValueError: no view, no detector pixel, or an axis that is not a finite non-zero vector of length 3.

    Example:
        >>> ParallelBeam(np.array(CUBE_DIAGONAL), num_views=4, detector_size=16).angles_rad.round(3)
        array([0.   , 0.785, 1.571, 2.356])
    """

    axis: Array
    num_views: int
    detector_size: int

    def __post_init__(self) -> None:
        axis = np.asarray(self.axis, dtype=float)
        if axis.shape != (3,) or not np.isfinite(axis).all() or not axis.any():
            raise ValueError(f"expected axis to be a finite non-zero vector (x, y, z), got {self.axis}")
        check_positive(num_views=self.num_views, detector_size=self.detector_size)
        object.__setattr__(self, "axis", axis / np.linalg.norm(axis))

    @property
    def pixel_size(self) -> float:
        """Side of a detector pixel, in half-widths of the cube."""
        return 2 * DETECTOR_HALF_WIDTH / self.detector_size

    @cached_property
    def angles_rad(self) -> Array:
        """View angles φ: (num_views,)."""
        return np.pi * np.arange(self.num_views) / self.num_views

    @cached_property
    def detector_directions(self) -> Array:
        """Horizontal detector directions e(φ): (num_views, 3)."""
        u, v, _ = _frame(self.axis)
        return np.cos(self.angles_rad)[:, None] * u + np.sin(self.angles_rad)[:, None] * v

    @cached_property
    def ray_directions(self) -> Array:
        """Ray directions d(φ): (num_views, 3)."""
        u, v, _ = _frame(self.axis)
        return np.cos(self.angles_rad)[:, None] * v - np.sin(self.angles_rad)[:, None] * u
