"""The classes of a preprocessed scan as the labels of the scan itself."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.datamodules.volumes.box import as_index
from src.datamodules.volumes.cases import CachedScan
from src.utils.nifti import write_like


def write_labels(cached: CachedScan, classes: NDArray[np.generic], label_values: Mapping[int, int], path: Path) -> Path:
    """Write the classes of a scan's box to a file like the scan's first image, and return its path.

    Raises:
        ValueError: if the shape is not that of the box, or a class has no value.
    """
    part = as_index(cached.facts["box"])
    expected = tuple(side.stop - side.start for side in part)
    if classes.shape != expected:
        raise ValueError(f"expected classes of shape {expected} for {cached.case.name}, got {classes.shape}")
    labels = as_labels(classes, label_values)
    whole = np.zeros(cached.facts["shape"], labels.dtype)
    whole[part] = labels
    return write_like(cached.case.images[0], whole, path)


def as_labels(classes: NDArray[np.generic], label_values: Mapping[int, int]) -> NDArray[np.generic]:
    """Return the value in the files of each class in memory, in the smallest type of integers that holds all values.

    Raises:
        ValueError: for a class that has no value.
    """
    found = set(np.unique(classes).tolist())
    if not found <= set(label_values):
        raise ValueError(f"expected classes among {sorted(label_values)}, got {sorted(found)}")
    values = np.zeros(max(label_values) + 1, np.min_scalar_type(max(label_values.values())))
    for name, value in label_values.items():
        values[name] = value
    return values[classes]
