"""The classes of a preprocessed scan as the labels of the scan itself."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.datamodules.volumes.box import as_index
from src.datamodules.volumes.cases import CachedScan
from src.datamodules.volumes.labels import to_labels
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
    labels = to_labels(classes, label_values)
    whole = np.zeros(cached.facts["shape"], labels.dtype)
    whole[part] = labels
    return write_like(cached.case.images[0], whole, path)
