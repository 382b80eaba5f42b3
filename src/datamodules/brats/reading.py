"""Reading one case, and checking that its volumes fit together."""

import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from src.datamodules.brats.cases import Case, Problem
from src.datamodules.brats.releases import MODALITIES, RELEASES, ROLES, TRUTH, Release
from src.utils.reading import FileError, reading

# How far two files may place the same corner apart. Rounding in headers is below 1e-3 mm, a voxel is 1 mm.
AFFINE_TOLERANCE_MM = 0.1


class Volume(NamedTuple):
    """Voxels (X, Y, Z) and the 4×4 matrix from their indices to millimetres."""

    voxels: NDArray[Any]
    affine: NDArray[np.float64]


class Geometry(NamedTuple):
    """The shape and the affine of a case's first volume, and its file."""

    file: str
    shape: tuple[int, ...]
    affine: NDArray[np.float64]


class CaseVolumes(NamedTuple):
    """The modalities, float32 (4, X, Y, Z), as in the files, and the canonical classes, uint8 (X, Y, Z)."""

    images: NDArray[np.float32]
    classes: NDArray[np.uint8] | None


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file to its end, which verifies gzip's checksum; raise FileError if it is no whole volume."""
    with reading(path, "a whole NIfTI file"):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
        image = nib.Nifti1Image.from_bytes(content)
        _check_header(image, len(content))
        return Volume(np.asanyarray(image.dataobj), image.affine)


def _check_header(image: nib.Nifti1Image, length: int) -> None:
    """Raise ValueError unless the header describes a volume that the file holds, before memory is asked for."""
    shape, dtype = image.shape, image.get_data_dtype()
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"expected a volume of 3 dimensions, got shape {shape}")
    if dtype.kind not in "iuf":
        raise ValueError(f"expected integers or floating-point numbers, got {dtype}")
    proxy: Any = image.dataobj
    needed = proxy.offset + math.prod(shape) * dtype.itemsize
    if needed > length:
        raise ValueError(f"expected {needed} bytes for shape {shape} of {dtype}, got {length}")


def read_case(case: Case, release: Release) -> CaseVolumes | list[Problem]:
    """Return the volumes of a case, or all its problems; the memory is that of four float32 volumes and one file."""
    problems: list[Problem] = []
    images = np.empty((len(MODALITIES), 0, 0, 0), np.float32)
    classes = None
    first: Geometry | None = None
    for channel, (role, path) in enumerate(zip(ROLES, case.files, strict=False)):
        try:
            volume = read_volume(path)
        except FileError as error:
            problems.append(Problem(case.name, path.name, str(error)))
            continue
        if first is None:
            first = Geometry(path.name, volume.voxels.shape, volume.affine)
            images = np.empty((len(MODALITIES), *first.shape), np.float32)
        messages = [*_find_geometry_errors(volume, first), *_find_value_errors(volume.voxels, role, release)]
        problems += [Problem(case.name, path.name, message) for message in messages]
        if problems:
            continue
        if role == TRUTH:
            classes = release.to_classes(volume.voxels)
        else:
            images[channel] = volume.voxels
    return problems or CaseVolumes(images, classes)


def _find_geometry_errors(volume: Volume, first: Geometry) -> Iterator[str]:
    if volume.voxels.shape != first.shape:
        yield f"expected shape {first.shape} as in {first.file}, got {volume.voxels.shape}"
    difference_mm = (np.abs(volume.affine - first.affine) @ [*first.shape, 1])[:3].max()
    if not difference_mm <= AFFINE_TOLERANCE_MM:
        affines = [matrix[:3].round(4).tolist() for matrix in (first.affine, volume.affine)]
        yield f"expected the affine of {first.file}, {affines[0]}, got {affines[1]}"


def _find_value_errors(voxels: NDArray[Any], role: str, release: Release) -> Iterator[str]:
    with np.errstate(over="ignore"):  # too large values become infinite, and are counted
        num_infinite = np.count_nonzero(~np.isfinite(voxels.astype(np.float32, copy=False)))
    if num_infinite:
        yield f"expected finite values, got {num_infinite} infinite or NaN values"
    elif role == TRUTH:
        yield from _find_label_errors(voxels, release)
    elif not voxels.any():
        yield "expected a brain, got zeros only"


def _find_label_errors(labels: NDArray[Any], release: Release) -> Iterator[str]:
    found, allowed = set(np.unique(labels).tolist()), set(release.label_values.values())
    if not found <= allowed:
        fitting = [other.name for other in RELEASES.values() if found <= set(other.label_values.values())]
        hint = f" (labels of release {' or '.join(fitting)})" if fitting else ""
        shown = ", ".join(f"{value:g}" for value in sorted(found)[:10]) + (", …" if len(found) > 10 else "")
        yield f"expected labels {', '.join(map(str, sorted(allowed)))} of release {release.name}, got {shown}{hint}"
