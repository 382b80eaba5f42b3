"""Antialiased voxelisation of foam phantoms and resizing of volumes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from src.ct.foam import FoamPhantom
from src.ct.geometry import grid_centres

Volume = NDArray[np.float32]

# Bounds the memory of one slab of fine slices.
MAX_FINE_VOXELS_PER_SLAB = 2**25


def downsample(volume: Volume, factor: int) -> Volume:
    """Shrink a volume (factor·D, factor·H, factor·W) to (D, H, W), each voxel the mean of the block it covers.

    For factor 2 this is trilinear interpolation at the centres of the coarse voxels.

    Raises:
        ValueError: a side of the volume is not a multiple of `factor`.
    """
    if factor < 1 or any(side % factor for side in volume.shape):
        raise ValueError(f"expected sides that are multiples of a factor >= 1, got {volume.shape} and {factor}")
    if factor == 1:
        return volume
    return functional.avg_pool3d(torch.from_numpy(volume)[None, None], factor)[0, 0].numpy()


def voxelise(phantom: FoamPhantom, size: int, oversampling: int = 4) -> Volume:
    """Return the phantom on the grid of the cube [−1, 1]³, each voxel the mean of oversampling³ point samples.

    Only a slab of the fine grid is held at a time, and each ball touches only the voxels of its bounding box.

    Returns:
        (size, size, size) as (z, y, x), values in [0, 1].

    Raises:
        ValueError: `size` or `oversampling` is less than 1.
    """
    if size < 1 or oversampling < 1:
        raise ValueError(f"expected size and oversampling of at least 1, got {size} and {oversampling}")
    centres = grid_centres(size * oversampling)
    slab_slices = max(1, MAX_FINE_VOXELS_PER_SLAB // (oversampling * len(centres) ** 2)) * oversampling
    slabs = [
        downsample(_sample(phantom, centres[start : start + slab_slices], centres), oversampling)
        for start in range(0, len(centres), slab_slices)
    ]
    return np.concatenate(slabs)


def _sample(phantom: FoamPhantom, z: NDArray[np.float64], xy: NDArray[np.float64]) -> Volume:
    """Return 1 at the grid's points (z, y, x) inside the material, else 0: (len(z), len(xy), len(xy))."""
    disc = xy[:, None] ** 2 + xy**2 <= phantom.radius**2
    inside = (np.abs(z) <= phantom.half_height)[:, None, None] & disc
    for (cx, cy, cz), radius in zip(phantom.centres, phantom.radii, strict=True):
        z_box, y_box, x_box = (
            slice(*np.searchsorted(planes, [centre - radius, centre + radius]))
            for planes, centre in ((z, cz), (xy, cy), (xy, cx))
        )
        in_plane = (xy[y_box, None] - cy) ** 2 + (xy[x_box] - cx) ** 2
        inside[z_box, y_box, x_box] &= (z[z_box] - cz)[:, None, None] ** 2 + in_plane > radius**2
    return inside.astype(np.float32)
