"""Reading one case, and checking that its volumes fit together."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.datamodules.brats.releases import MODALITIES, RELEASES, ROLES, TRUTH, Release
from src.datamodules.volumes.cases import Case, Problem
from src.datamodules.volumes.reading import Geometry, count_infinite, geometry_errors, read_volume
from src.utils.reading import FileError


class CaseVolumes(NamedTuple):
    """The modalities, float32 (4, X, Y, Z), as in the files, and the canonical classes, uint8 (X, Y, Z)."""

    images: NDArray[np.float32]
    classes: NDArray[np.uint8] | None


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
        messages = [*geometry_errors(volume, first), *_find_value_errors(volume.voxels, role, release)]
        problems += [Problem(case.name, path.name, message) for message in messages]
        if problems:
            continue
        if role == TRUTH:
            classes = release.to_classes(volume.voxels)
        else:
            images[channel] = volume.voxels
    return problems or CaseVolumes(images, classes)


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
        fitting = [other.name for other in RELEASES.values() if found <= set(other.label_values.values())]
        hint = f" (labels of release {' or '.join(fitting)})" if fitting else ""
        shown = ", ".join(f"{value:g}" for value in sorted(found)[:10]) + (", …" if len(found) > 10 else "")
        yield f"expected labels {', '.join(map(str, sorted(allowed)))} of release {release.name}, got {shown}{hint}"
