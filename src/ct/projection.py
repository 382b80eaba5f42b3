"""Exact line integrals of a foam phantom: the chord of the cylinder minus the chords of its balls."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..invertible.arguments import check_positive
from .foam import FoamPhantom
from .geometry import DETECTOR_HALF_WIDTH, Array, ParallelBeam, grid_centres

# Rays evaluated together: few enough for the cache of a CPU, many enough to fill a GPU.
RAYS_PER_BLOCK = {"cpu": 2**16, "cuda": 2**23}
# Rays at a smaller angle to the axis of the cylinder count as parallel to its wall.
MIN_ANGLE_RAD = 1e-8


def project(
    phantom: FoamPhantom, geometry: ParallelBeam, oversampling: int = 1, device: str | torch.device = "cpu"
) -> Array:
    """Return the phantom's line integrals, each pixel the mean over oversampling × oversampling sub-pixel centres.

    The balls must lie in the cylinder and not overlap. The computation runs on `device`.

    Args:
        phantom: what is scanned.
        geometry: axis, views and detector.
        oversampling: sub-pixels per side of a pixel.
        device: where it is computed.

    Returns:
        (views, t, s), float64, in half-widths of the cube times the attenuation 1.

    Raises:
        ValueError: `oversampling` is less than 1.

    Example:
        >>> phantom = FoamPhantom(0.8, 0.8, np.array([[0.0, 0.0, 0.2]]), np.array([0.4]))
        >>> project(phantom, ParallelBeam(np.array([0.0, 0.0, 1.0]), num_views=4, detector_size=16)).shape
        (4, 16, 16)
    """
    check_positive(oversampling=oversampling)
    shape = (geometry.num_views, geometry.detector_size, geometry.detector_size)
    sums = torch.zeros(shape, dtype=torch.float64, device=device)  # over the sub-pixels of each pixel
    _add_cylinder(sums, phantom, geometry, oversampling)
    rays_per_block = _rays_per_block(sums.device)
    widths = np.ceil(2 * phantom.radii / geometry.pixel_size).astype(int) + 1  # pixels under each ball
    batches = phantom.batches(widths, lambda width: rays_per_block // (geometry.num_views * width**2), sums.device)
    for centres, radii, width in batches:
        _subtract_balls(sums, centres, radii, width, geometry, oversampling)
    return sums.div_(oversampling**2).cpu().numpy()


def _rays_per_block(device: torch.device) -> int:
    return RAYS_PER_BLOCK["cpu" if device.type == "cpu" else "cuda"]


def _add_cylinder(sums: Tensor, phantom: FoamPhantom, geometry: ParallelBeam, oversampling: int) -> None:
    """Add the chord lengths of the finite cylinder for all rays s·e + t·axis + λ d.

    With a = d_x² + d_y² and q = s·axis_z − t·e_z, a ray is within the wall for |λ a + b| ≤ w = √(a R² − q²) and between
    the caps for |λ d_z + z| ≤ H. As b = −z d_z, the middles of these intervals of λ a are |z|/|d_z| apart, and they
    share min(2 w, 2 a H/|d_z|, w + (a H − |z|)/|d_z|), or nothing where that is negative.
    """
    axis_z = geometry.axis[2]
    for view, (_, _, e_z), direction in zip(sums, geometry.detector_directions, geometry.ray_directions, strict=True):
        a = direction[0] ** 2 + direction[1] ** 2
        steepness = max(abs(direction[2]), np.finfo(float).tiny)
        between_caps = 2 * phantom.half_height / steepness
        for rows, t, s in _ray_blocks(view, oversampling):
            if a < MIN_ANGLE_RAD**2:
                rows.add_((s**2 + t**2 < phantom.radius**2).to(rows), alpha=between_caps)
                continue
            wall = (axis_z * s - e_z * t).square_().neg_().add_(a * phantom.radius**2).clamp_(min=0).sqrt_()
            height = (e_z * s + axis_z * t).abs_()
            overlap = height.neg_().add_(a * phantom.half_height).div_(steepness).add_(wall)
            shared = torch.minimum(overlap, wall.mul_(2), out=overlap)
            rows.add_(shared.clamp_(0, a * between_caps), alpha=1 / a)


def _ray_blocks(view: Tensor, oversampling: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield blocks of a view's rows (r, S) with coordinates t (r, 1) and s (S,), once for each sub-pixel of a pixel."""
    size = len(view)
    fine = torch.from_numpy(grid_centres(size * oversampling, DETECTOR_HALF_WIDTH)).to(view)
    phases = fine.view(size, oversampling).T.contiguous()
    num_rows = max(1, _rays_per_block(view.device) // size)
    for t_phase in phases[:, :, None]:
        for rows, t in zip(view.split(num_rows), t_phase.split(num_rows), strict=True):
            for s in phases:
                yield rows, t, s


def _subtract_balls(
    sums: Tensor, centres: Tensor, radii: Tensor, width: int, geometry: ParallelBeam, oversampling: int
) -> None:
    """Subtract each ball's chords 2 √(r² − ρ²), ρ the ray's distance from its centre, in all views at once."""
    pixel_size, size = geometry.pixel_size, geometry.detector_size

    def box(coordinate: Tensor) -> tuple[Tensor, Tensor]:
        """Return a box's pixels (…, w) along one axis of the detector, and squared offsets (k, …, w) of sub-pixels."""
        first = ((coordinate - radii + DETECTOR_HALF_WIDTH) / pixel_size).floor()
        pixels = first[..., None] + torch.arange(width, device=sums.device)
        phases = (torch.arange(oversampling).to(sums) + 0.5) / oversampling
        edges = pixels * pixel_size - (coordinate + DETECTOR_HALF_WIDTH)[..., None]
        offsets = edges + pixel_size * phases.view(-1, *[1] * edges.ndim)
        # A box may end beyond the detector. The ball does not reach there, so these chords are zero.
        return pixels.long().clamp_(max=size - 1), offsets.square_()

    directions = torch.from_numpy(geometry.detector_directions).to(sums)
    s_pixels, s_squared = box(directions @ centres.T)  # (V, n, w), (k, V, n, w)
    t_pixels, t_squared = box(centres @ torch.from_numpy(geometry.axis).to(sums))  # (n, w), (k, n, w)
    half_chords = sums.new_zeros(geometry.num_views, len(radii), width, width)
    scratch = torch.empty_like(half_chords)
    for below in radii[:, None] ** 2 - t_squared:
        for s_phase in s_squared:
            torch.sub(below[:, :, None], s_phase[:, :, None], out=scratch)
            half_chords += scratch.clamp_(min=0).sqrt_()
    first_rows = torch.arange(geometry.num_views, device=sums.device)[:, None, None] * size
    index = ((first_rows + t_pixels) * size)[..., None] + s_pixels[:, :, None]
    sums.view(-1).index_add_(0, index.view(-1), half_chords.view(-1), alpha=-2)
