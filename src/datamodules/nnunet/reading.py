"""Reading one case, and checking that its volumes fit together and to dataset.json."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.datamodules.nnunet.description import FILE_NAME, Description
from src.datamodules.problems import Problem
from src.datamodules.volumes.cases import Case, CaseVolumes
from src.datamodules.volumes.checks import count_infinite
from src.datamodules.volumes.labels import listed, snapped, to_classes
from src.utils.grids import Grid, geometry_errors
from src.utils.nifti import Volume, read_volume
from src.utils.reading import FileError


def read_case(case: Case, description: Description) -> CaseVolumes | list[Problem]:
    """Return the volumes of a case, or all its problems."""
    problems: list[Problem] = []
    channels: list[NDArray[np.float32]] = []
    classes = None
    first: Grid | None = None
    for path in case.files:
        is_truth = path == case.truth
        try:
            volume = _read(path, is_truth, description)
        except FileError as error:
            problems.append(Problem(case.name, path.name, str(error)))
            continue
        place = f"{path.parent.name}/{path.name}"  # of the Decathlon, image and labels have one name
        grid = Grid(place, volume.voxels.shape[:3], volume.affine)
        first = first or grid
        messages = [*geometry_errors(grid, first), *_value_errors(volume.voxels, is_truth, description)]
        problems += [Problem(case.name, place, message) for message in messages]
        if is_truth:
            classes = None if messages else to_classes(volume.voxels, description.label_values)
        else:
            channels += list(np.moveaxis(volume.voxels.reshape(*volume.voxels.shape[:3], -1), -1, 0))
    if not problems and len(channels) != len(description.channels):
        message = f"expected the {len(description.channels)} channels of {FILE_NAME}, got {len(channels)}"
        problems.append(Problem(case.name, case.images[0].name, message))
    if problems or first is None:
        return problems
    images = np.stack(channels).astype(np.float32, copy=False)
    return CaseVolumes(images, classes, first.spacing)


def _read(path: Path, is_truth: bool, description: Description) -> Volume:
    """Return a file's volume: labels (X, Y, Z), or images (X, Y, Z) or (X, Y, Z, C)."""
    volume = read_volume(path, (3, 4))
    shape = volume.voxels.shape
    if is_truth:
        if len(shape) == 4 and shape[3] == 1:
            volume = volume._replace(voxels=volume.voxels[..., 0])
        elif len(shape) == 4:
            raise FileError(f"expected labels of 3 dimensions, got shape {shape}")
        return volume._replace(voxels=snapped(volume.voxels))
    return volume


def _value_errors(voxels: NDArray[Any], is_truth: bool, description: Description) -> Iterator[str]:
    if num_infinite := count_infinite(voxels):
        yield f"expected finite values, got {num_infinite} infinite or NaN values; replace them in the file"
    elif is_truth:
        found, allowed = set(np.unique(voxels).tolist()), set(description.label_values.values())
        if not found <= allowed:
            yield f"expected labels {listed(allowed)} as in {FILE_NAME}, got {listed(found)}"
    elif not voxels.any():
        yield "expected an image, got zeros only"
