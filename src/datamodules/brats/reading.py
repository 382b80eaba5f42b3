"""Reading one case, and checking that its volumes fit together."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.datamodules.brats.cases import Case, Problem
from src.datamodules.brats.nifti import Volume, read_volume
from src.datamodules.brats.releases import MODALITIES, ROLES, TRUTH, Release
from src.utils.reading import FileError

# How far two files may place the same corner apart. Rounding in headers is below 1e-3 mm, a voxel is 1 mm.
AFFINE_TOLERANCE_MM = 0.1
# How far a label may be from its value: the scale in a header of floating-point numbers turns 1 into 1.00002.
LABEL_TOLERANCE = 1e-3


class Geometry(NamedTuple):
    """The shape and the affine of a case's first volume, and its file."""

    file: str
    shape: tuple[int, ...]
    affine: NDArray[np.float64]


class CaseVolumes(NamedTuple):
    """The modalities, float32 (4, X, Y, Z), as in the files, and the canonical classes, uint8 (X, Y, Z)."""

    images: NDArray[np.float32]
    classes: NDArray[np.uint8] | None
    oddities: list[Problem]  # what is unusual about the files, but no reason to refuse them


def read_case(case: Case, release: Release) -> CaseVolumes | list[Problem]:
    """Return the volumes of a case, or all its problems; the memory is that of four float32 volumes and one file."""
    problems: list[Problem] = []
    oddities: list[Problem] = []
    images = np.empty((len(MODALITIES), 0, 0, 0), np.float32)
    classes = None
    first: Geometry | None = None
    for channel, (role, path) in enumerate(zip(ROLES, case.files, strict=False)):
        try:
            volume = read_volume(path)
        except FileError as error:
            problems.append(Problem(case.name, path.name, str(error)))
            continue
        if role == TRUTH:
            volume = volume._replace(voxels=_snapped(volume.voxels))
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
            oddities += [Problem(case.name, path.name, message) for message in _find_oddities(volume.voxels)]
    return problems or CaseVolumes(images, classes, oddities)


def _snapped(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels with those that are nearly integers as integers."""
    if labels.dtype.kind in "iu":
        return labels
    nearest = np.rint(labels)
    return np.where(np.abs(labels - nearest) <= LABEL_TOLERANCE, nearest, labels)


def _find_oddities(voxels: NDArray[Any]) -> Iterator[str]:
    """Say if the background is not 0: most voxels on the six faces of a skull-stripped scan show no brain."""
    faces = np.concatenate([np.take(voxels, side, axis).ravel() for axis in range(voxels.ndim) for side in (0, -1)])
    if 2 * np.count_nonzero(faces) > faces.size:
        values, counts = np.unique(faces, return_counts=True)
        yield f"{np.mean(faces != 0):.0%} of the outermost voxels are not 0, most often {values[counts.argmax()]:g}"


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
        other = release.with_labels(found)
        hint = f"; release={other.name} reads them" if other is not None else ""
        shown = ", ".join(f"{value:g}" for value in sorted(found)[:10]) + (", …" if len(found) > 10 else "")
        yield f"expected labels {', '.join(map(str, sorted(allowed)))} of release {release.name}, got {shown}{hint}"
