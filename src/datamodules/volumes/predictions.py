"""Label maps as NIfTI files in the place of a scan."""

import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.datamodules.volumes.nifti import read_image
from src.utils.files import atomic_write


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


def write_like(scan_path: Path, labels: NDArray[np.generic], path: Path) -> Path:
    """Write labels (X, Y, Z) with the affine and header of a scan's file to ``path``, and return it."""
    scan = read_image(scan_path, (3, 4))
    header = scan.header.copy()
    header.set_data_dtype(labels.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0  # the range of brightness in viewers
    content = type(scan)(labels, scan.affine, header).to_bytes()
    with atomic_write(path) as file:
        # No time in gzip's header: the same prediction is the same file.
        file.write(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path
