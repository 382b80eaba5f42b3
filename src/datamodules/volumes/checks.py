"""Checks that the volumes of one case fit together."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.utils.nifti import Volume

# How far two files may place the same corner apart. Rounding in headers is below 1e-3 mm, a voxel is about 1 mm.
AFFINE_TOLERANCE_MM = 0.1


class Geometry(NamedTuple):
    """The shape and the affine of a case's first volume, and its file."""

    file: str
    shape: tuple[int, ...]
    affine: NDArray[np.float64]


def geometry_errors(volume: Volume, first: Geometry) -> Iterator[str]:
    """Yield how a volume (X, Y, Z, …) lies otherwise than the first one of its case."""
    shape = volume.voxels.shape[:3]
    if shape != first.shape:
        yield f"expected shape {first.shape} as in {first.file}, got {shape}; resample one"
    difference_mm = (np.abs(volume.affine - first.affine) @ [*first.shape, 1])[:3].max()
    if not difference_mm <= AFFINE_TOLERANCE_MM:
        affines = [matrix[:3].round(4).tolist() for matrix in (first.affine, volume.affine)]
        yield f"expected the affine of {first.file}, {affines[0]}, got {affines[1]}; resample one"


def count_infinite(voxels: NDArray[Any]) -> int:
    """Return how many values are infinite or NaN in single precision."""
    with np.errstate(over="ignore"):  # too large values become infinite, and are counted
        return int(np.count_nonzero(~np.isfinite(voxels.astype(np.float32, copy=False))))
