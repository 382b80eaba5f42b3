"""Exact line integrals of a foam phantom: the chord of the cylinder minus the chords of its balls."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from src.ct.foam import FoamPhantom
from src.ct.geometry import DETECTOR_HALF_WIDTH, ParallelBeam, grid_centres

Array = NDArray[np.float64]

# Bounds the memory of one batch of ball patches.
MAX_SAMPLES_PER_BATCH = 4_000_000


def project(phantom: FoamPhantom, geometry: ParallelBeam, oversampling: int = 1) -> Array:
    """Return the phantom's line integrals, each pixel the mean over oversampling × oversampling sub-pixel centres.

    Returns:
        (views, t, s), float64, in half-widths of the cube times the attenuation 1.

    Raises:
        ValueError: `oversampling` is less than 1.
    """
    if oversampling < 1:
        raise ValueError(f"expected detector oversampling of at least 1, got {oversampling}")
    fine_coordinates = grid_centres(geometry.detector_size * oversampling, DETECTOR_HALF_WIDTH)
    projection = np.empty((geometry.num_views, geometry.detector_size, geometry.detector_size))
    for view in range(geometry.num_views):
        # (T, S) sub-pixels -> (T', k, S', k) -> mean over each pixel
        chords = _cylinder_chords(phantom, geometry, view, fine_coordinates)
        split = (geometry.detector_size, oversampling) * 2
        projection[view] = chords.reshape(split).mean(axis=(1, 3))
    _subtract_balls(projection, phantom, geometry, oversampling)
    return projection


def _cylinder_chords(phantom: FoamPhantom, geometry: ParallelBeam, view: int, coordinates: Array) -> Array:
    """Return the chord lengths of the finite cylinder for one view's rays s·e + t·axis + λ d: (T, S).

    The wall bounds λ by the roots of a λ² + 2 b λ + c = 0 with a = d_x² + d_y², and the caps by |p_z + λ d_z| ≤ H.
    """
    direction = geometry.ray_directions[view]
    # (3, T, S): the rays' points nearest to the origin
    x, y, z = (
        along_t * coordinates[:, None] + along_s * coordinates
        for along_t, along_s in zip(geometry.axis, geometry.detector_directions[view], strict=True)
    )
    a = direction[0] ** 2 + direction[1] ** 2
    c = x**2 + y**2 - phantom.radius**2
    if a > 0:
        b = x * direction[0] + y * direction[1]
        discriminant = b**2 - a * c
        root = np.sqrt(np.maximum(discriminant, 0))
        enter, leave = (-b - root) / a, (-b + root) / a
        missed = discriminant <= 0
    else:  # parallel to the wall
        enter, leave = np.full_like(x, -np.inf), np.full_like(x, np.inf)
        missed = c >= 0
    if direction[2] != 0:
        to_caps = -z / direction[2]
        half_length = phantom.half_height / abs(direction[2])
        enter = np.maximum(enter, to_caps - half_length)
        leave = np.minimum(leave, to_caps + half_length)
    else:  # parallel to the caps
        missed |= np.abs(z) > phantom.half_height
    return np.where(missed, 0, np.maximum(leave - enter, 0))


def _subtract_balls(projection: Array, phantom: FoamPhantom, geometry: ParallelBeam, oversampling: int) -> None:
    """Subtract each ball's chords 2 √(r² − ρ²), ρ the ray's distance from its centre, from the pixels under it.

    Balls with equally large bounding boxes on the detector are evaluated together, for all views at once.
    """
    fine_size = geometry.pixel_size / oversampling
    widths = np.ceil(2 * phantom.radii / fine_size).astype(int) + 1
    for width in np.unique(widths):
        group = np.flatnonzero(widths == width)
        batch = max(1, MAX_SAMPLES_PER_BATCH // (geometry.num_views * width**2))
        for start in range(0, len(group), batch):
            balls = group[start : start + batch]
            _subtract_equal_balls(projection, phantom, geometry, oversampling, balls, int(width))


def _subtract_equal_balls(
    projection: Array,
    phantom: FoamPhantom,
    geometry: ParallelBeam,
    oversampling: int,
    balls: NDArray[np.intp],
    width: int,
) -> None:
    """Subtract the chords of balls whose bounding boxes are at most `width` sub-pixels wide."""
    fine_size = geometry.pixel_size / oversampling
    radii = phantom.radii[balls]

    def patch(centres: Array) -> tuple[NDArray[np.intp], Array]:
        """Return the sub-pixels under a ball along one detector coordinate and their squared offsets: (..., w)."""
        first = np.floor((centres - radii + DETECTOR_HALF_WIDTH) / fine_size).astype(np.intp)
        index = first[..., None] + np.arange(width)
        offset = (index + 0.5) * fine_size - DETECTOR_HALF_WIDTH - centres[..., None]
        # The box may end beyond the detector, where the ball does not reach: its chords there are zero.
        return np.minimum(index // oversampling, geometry.detector_size - 1), offset**2

    centres = phantom.centres[balls]
    s_index, s_squared = patch(geometry.detector_directions @ centres.T)  # (V, n, w)
    t_index, t_squared = patch(centres @ geometry.axis)  # (n, w)
    # (V, n, w_t, w_s)
    chords = (radii[:, None] ** 2 - t_squared)[:, :, None] - s_squared[:, :, None, :]
    np.sqrt(np.maximum(chords, 0, out=chords), out=chords)
    view_index = np.arange(geometry.num_views)[:, None, None, None]
    size = geometry.detector_size
    pixel = (view_index * size + t_index[:, :, None]) * size + s_index[:, :, None, :]
    total = np.bincount(pixel.ravel(), weights=chords.ravel(), minlength=projection.size)
    projection -= (2 / oversampling**2) * total.reshape(projection.shape)
