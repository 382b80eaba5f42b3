"""NIfTI files as they are: of both versions, compressed or not whatever their names say, read to their ends."""

import gzip
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from src.utils.files import atomic_write
from src.utils.reading import reading

GZIP_MAGIC = b"\x1f\x8b"
# The sizes of their headers, which are a file's first four bytes in either byte order, tell the versions apart.
VERSIONS = {348: nib.Nifti1Image, 540: nib.Nifti2Image}
# All numbers of dimensions that the format has.
ANY = range(1, 8)


class Volume(NamedTuple):
    """Voxels (X, Y, Z) or (X, Y, Z, C), and the 4×4 matrix from their indices to millimetres."""

    voxels: NDArray[Any]
    affine: NDArray[np.float64]


def read_volume(path: Path, dimensions: Collection[int] = (3,)) -> Volume:
    """Read a NIfTI file to its end, which verifies gzip's checksum; raise FileError if it is no whole volume."""
    image = read_image(path, dimensions)
    with reading(path, "a whole NIfTI file"):
        return Volume(np.asanyarray(image.dataobj), image.affine)


def read_image(path: Path, dimensions: Collection[int] = (3,)) -> nib.Nifti1Image:
    """Return a NIfTI file of a volume, with its header; raise FileError if it is no whole volume."""
    with reading(path, "a whole NIfTI file"):
        with path.open("rb") as start:
            compressed = start.read(2) == GZIP_MAGIC
        with gzip.open(path) if compressed else path.open("rb") as file:
            content = file.read()
        image = _version(content).from_bytes(content)
        _check_header(image, len(content), dimensions)
        return image


def _version(content: bytes) -> type[nib.Nifti1Image]:
    for order in ("little", "big"):
        version = VERSIONS.get(int.from_bytes(content[:4], order))
        if version is not None:
            return version
    raise ValueError(f"expected the header of NIfTI-1 or NIfTI-2, got {len(content)} bytes, {content[:16]!r} first")


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


def write_volume(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write voxels (X, Y, Z) or (X, Y, Z, C), compressed if the name ends with .gz; the file appears whole.

    ``affine`` is 4×4, from their indices to millimetres.
    """
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    _write(path, image)


def write_like(scan_path: Path, voxels: NDArray[np.generic], path: Path) -> Path:
    """Write voxels (X, Y, Z) or (X, Y, Z, C) with the affine and header of a scan's file to ``path``, and return it."""
    scan = read_image(scan_path, ANY)
    header = scan.header.copy()
    header.set_data_dtype(voxels.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0  # the range of brightness in viewers
    _write(path, type(scan)(voxels, scan.affine, header))
    return path


def _write(path: Path, image: nib.Nifti1Image) -> None:
    content = image.to_bytes()
    with atomic_write(path) as file:
        # No time in gzip's header: the same volume is the same file.
        file.write(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
