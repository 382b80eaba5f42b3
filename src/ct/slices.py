"""Filtered backprojection of measured parallel-beam scans, slice by slice, for any angles and centre of rotation.

The rotation axis is vertical, so that each detector row sees one slice. At angle φ the detector coordinate of a point
(x, y) of the slice is s = x cos φ + y sin φ. Slices are arrays (row, column) with x along the columns and y upwards,
from the last row to the first, as in scikit-image and ASTRA.

Source: A.C. Kak, M. Slaney: Principles of Computerized Tomographic Imaging (1988), chapter 3.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .fbp import filter_views

# Bounds the memory of the samples of one block of slices.
MAX_VOXELS_PER_BLOCK = 2**23
MAX_WEDGES = 2


def view_weights(angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the half-turn that each view stands for, in radians: (views,).

    A view's share reaches halfway to its neighbours modulo π, so that a full turn, uneven or random steps and a view at
    both 0 and π are weighted correctly: the shares sum to π. Only one or two missing wedges, more than three times as
    wide as a typical step and as the widest other one, are no view's share but for three quarters of a typical step on
    either side.
    """
    half_turn = np.mod(angles_rad, np.pi)
    order = np.argsort(half_turn, kind="stable")
    steps = np.diff(half_turn[order], append=half_turn[order[:1]] + np.pi)  # from each view to the next
    growing = np.sort(steps)
    typical = _typical(growing[:-1])
    for wedges in range(1, min(MAX_WEDGES, len(steps) - 1) + 1):
        narrowest = growing[-wedges]
        if narrowest > 3 * max(typical, growing[-wedges - 1]):
            steps = np.where(steps >= narrowest, 1.5 * typical, steps)
    weights = np.empty_like(steps)
    weights[order] = (steps + np.roll(steps, 1)) / 2
    return weights


def _typical(steps: NDArray[np.float64]) -> float:
    """Return, of growing steps, the one below which those lie that cover half of the angles; π if they cover none.

    (Their median would be one of the many tiny steps of a second half-turn that nearly repeats the first.)
    """
    covered = np.cumsum(steps)
    if not steps.any():
        return np.pi
    return float(steps[np.searchsorted(covered, covered[-1] / 2)])


def reconstruct_slices(
    sinograms: Tensor,
    angles_rad: NDArray[np.float64],
    *,
    centre: float | None = None,
    size: int | None = None,
    pixel_width: float = 1.0,
    filter_name: str = "ramp",
) -> Tensor:
    """Reconstruct slices from their line integrals, on the device and in the type of the sinograms.

    Args:
        sinograms: line integrals (rows, views, pixels), one sinogram for each row of the detector.
        angles_rad: of the views: (views,).
        centre: detector coordinate of the rotation axis in pixels, the first pixel's centre being 0; the middle of the
            detector, (pixels − 1)/2, by default.
        size: N, pixels per side of a slice; the detector's number by default.
        pixel_width: of a slice, in pixels of the detector.
        filter_name: one of `fbp.FILTERS`.

    Returns:
        (rows, N, N), in attenuation per pixel of the detector. Parts of a slice that some view did not see are biased.

    Raises:
        ValueError: for shapes that do not fit, an unknown filter, or a centre off the detector.

    Example:
        >>> angles = np.linspace(0, np.pi, 16, endpoint=False)
        >>> reconstruct_slices(torch.rand(3, 16, 32), angles, filter_name="hann").shape
        torch.Size([3, 32, 32])
    """
    if sinograms.ndim != 3:
        raise ValueError(f"expected sinograms of shape (rows, views, pixels), got {tuple(sinograms.shape)}")
    num_rows, num_views, num_pixels = sinograms.shape
    if np.shape(angles_rad) != (num_views,):
        raise ValueError(f"expected an angle for each of {num_views} views, got angles of shape {np.shape(angles_rad)}")
    centre = (num_pixels - 1) / 2 if centre is None else centre
    if not 0 <= centre <= num_pixels - 1:
        raise ValueError(f"expected the centre of rotation between 0 and {num_pixels - 1} pixels, got {centre}")
    size = num_pixels if size is None else size
    if size < 1:
        raise ValueError(f"expected a reconstruction size of at least 1, got {size}")
    if not pixel_width > 0:
        raise ValueError(f"expected a positive pixel width, got {pixel_width}")
    x = (torch.arange(size, dtype=torch.float64, device=sinograms.device) - (size - 1) / 2) * pixel_width
    rows_per_block = max(1, MAX_VOXELS_PER_BLOCK // max(size**2, num_views * num_pixels))
    slices = sinograms.new_zeros(num_rows, size, size)
    for part, block in zip(slices.split(rows_per_block), sinograms.split(rows_per_block), strict=True):
        _backproject(part, filter_views(block, 1.0, filter_name), angles_rad, centre, x)
    return slices


def _backproject(slices: Tensor, views: Tensor, angles_rad: NDArray[np.float64], centre: float, x: Tensor) -> None:
    """Add Σ_φ w_φ views_φ(centre + x cos φ + y sin φ) to slices (rows, N, N) over x and y = −x, linearly."""
    num_pixels = views.shape[-1]
    # Rows last, so that one index fetches all of them; zeros on either side stand for what is off the detector.
    padded = torch.nn.functional.pad(views, (1, 1)).permute(1, 2, 0).contiguous()  # (views, pixels + 2, rows)
    sums = slices.new_zeros(len(x) ** 2, len(slices))
    for view, angle, weight in zip(padded, angles_rad.tolist(), view_weights(angles_rad).tolist(), strict=True):
        position = (centre + 1 + x * math.cos(angle) - x[:, None] * math.sin(angle)).flatten()
        left = position.floor().clamp_(0, num_pixels)
        share = (position - left).clamp_(0, 1).to(views)[:, None]
        index = left.long()
        sums.add_(torch.lerp(view[index], view[index + 1], share), alpha=weight)
    slices += sums.T.view_as(slices)
