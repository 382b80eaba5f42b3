"""Reading volumes, and checking that those of one case fit together."""

import gzip
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from src.utils.reading import reading

# How far two files may place the same corner apart. Rounding in headers is below 1e-3 mm, a voxel is about 1 mm.
AFFINE_TOLERANCE_MM = 0.1


class Volume(NamedTuple):
    """Voxels (X, Y, Z) or (X, Y, Z, C), and the 4×4 matrix from their indices to millimetres."""

    voxels: NDArray[Any]
    affine: NDArray[np.float64]


class Geometry(NamedTuple):
    """The shape and the affine of a case's first volume, and its file."""

    file: str
    shape: tuple[int, ...]
    affine: NDArray[np.float64]


def read_volume(path: Path, dimensions: Collection[int] = (3,)) -> Volume:
    """Read a NIfTI file to its end, which verifies gzip's checksum; raise FileError if it is no whole volume."""
    with reading(path, "a whole NIfTI file"):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
        image = nib.Nifti1Image.from_bytes(content)
        _check_header(image, len(content), dimensions)
        return Volume(np.asanyarray(image.dataobj), image.affine)


def _check_header(image: nib.Nifti1Image, length: int, dimensions: Collection[int]) -> None:
    """Raise ValueError unless the header describes a volume that the file holds, before memory is asked for."""
    shape, dtype = image.shape, image.get_data_dtype()
    if len(shape) not in dimensions or min(shape) < 1:
        raise ValueError(f"expected a volume of {' or '.join(map(str, dimensions))} dimensions, got shape {shape}")
    if dtype.kind not in "iuf":
        raise ValueError(f"expected integers or floating-point numbers, got {dtype}")
    proxy: Any = image.dataobj
    needed = proxy.offset + math.prod(shape) * dtype.itemsize
    if needed > length:
        raise ValueError(f"expected {needed} bytes for shape {shape} of {dtype}, got {length}")


def geometry_errors(volume: Volume, first: Geometry) -> Iterator[str]:
    """Yield how a volume (X, Y, Z, …) lies otherwise than the first one of its case."""
    shape = volume.voxels.shape[:3]
    if shape != first.shape:
        yield f"expected shape {first.shape} as in {first.file}, got {shape}"
    difference_mm = (np.abs(volume.affine - first.affine) @ [*first.shape, 1])[:3].max()
    if not difference_mm <= AFFINE_TOLERANCE_MM:
        affines = [matrix[:3].round(4).tolist() for matrix in (first.affine, volume.affine)]
        yield f"expected the affine of {first.file}, {affines[0]}, got {affines[1]}"


def count_infinite(voxels: NDArray[Any]) -> int:
    """Return how many values are infinite or NaN in single precision."""
    with np.errstate(over="ignore"):  # too large values become infinite, and are counted
        return int(np.count_nonzero(~np.isfinite(voxels.astype(np.float32, copy=False))))
