"""Reading one case, and checking that its volumes fit together."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.datamodules.brats.releases import MODALITIES, ROLES, TRUTH, Release
from src.datamodules.problems import Problem
from src.datamodules.volumes.cases import Case, CaseVolumes
from src.datamodules.volumes.checks import count_infinite
from src.datamodules.volumes.labels import listed, snapped, to_classes
from src.utils.grids import Grid, geometry_errors
from src.utils.nifti import read_volume
from src.utils.reading import FileError


def read_case(case: Case, release: Release) -> CaseVolumes | list[Problem]:
    """Return the volumes of a case, or all its problems; the memory is that of four float32 volumes and one file."""
    problems: list[Problem] = []
    oddities: list[Problem] = []
    images = np.empty((len(MODALITIES), 0, 0, 0), np.float32)
    classes = None
    first: Grid | None = None
    for channel, (role, path) in enumerate(zip(ROLES, case.files, strict=False)):
        try:
            volume = read_volume(path)
        except FileError as error:
            problems.append(Problem(case.name, path.name, str(error)))
            continue
        if role == TRUTH:
            volume = volume._replace(voxels=snapped(volume.voxels))
        grid = Grid(path.name, volume.voxels.shape, volume.affine)
        if first is None:
            first = grid
            images = np.empty((len(MODALITIES), *first.shape), np.float32)
        messages = [*geometry_errors(grid, first), *_find_value_errors(volume.voxels, role, release)]
        problems += [Problem(case.name, path.name, message) for message in messages]
        if problems:
            continue
        if role == TRUTH:
            classes = to_classes(volume.voxels, release.label_values)
        else:
            images[channel] = volume.voxels
            oddities += [Problem(case.name, path.name, message) for message in _find_oddities(volume.voxels)]
    if problems or first is None:
        return problems
    return CaseVolumes(images, classes, first.spacing, oddities)


def _find_oddities(voxels: NDArray[Any]) -> Iterator[str]:
    """Say if the background is not 0: most voxels on the six faces of a skull-stripped scan show no brain."""
    faces = np.concatenate([np.take(voxels, side, axis).ravel() for axis in range(voxels.ndim) for side in (0, -1)])
    if 2 * np.count_nonzero(faces) > faces.size:
        values, counts = np.unique(faces, return_counts=True)
        yield f"{np.mean(faces != 0):.0%} of the outermost voxels are not 0, most often {values[counts.argmax()]:g}"


def _find_value_errors(voxels: NDArray[Any], role: str, release: Release) -> Iterator[str]:
    if num_infinite := count_infinite(voxels):
        yield f"expected finite values, got {num_infinite} infinite or NaN values"
    elif role == TRUTH:
        yield from _find_label_errors(voxels, release)
    elif not voxels.any():
        yield "expected a brain, got zeros only"


def _find_label_errors(labels: NDArray[Any], release: Release) -> Iterator[str]:
    found, allowed = set(np.unique(labels).tolist()), set(release.label_values.values())
    if not found <= allowed:
        other = release.with_labels(found)
        hint = f"; datamodule.release={other.name} reads them" if other is not None else ""
        yield f"expected labels {listed(allowed)} of release {release.name}, got {listed(found)}{hint}"
