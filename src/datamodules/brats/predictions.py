"""Segmentations as NIfTI files in the place and the labels of the scan."""

import gzip
from pathlib import Path

import numpy as np
from torch import Tensor

from src.datamodules.brats.cache import CachedCase
from src.datamodules.brats.nifti import read_image
from src.datamodules.brats.releases import Release
from src.utils.files import atomic_write


def write_prediction(cached: CachedCase, label: Tensor, release: Release, folder: Path) -> Path:
    """Write canonical classes (X, Y, Z) of a case's box to ``<folder>/<case>.nii.gz``, and return that path.

    The file has the shape, affine and header of the case's first modality, and the label values of the release.

    Raises:
        ValueError: if the shape is not that of the box, or a class is not the release's.
    """
    part = cached.part
    expected = tuple(side.stop - side.start for side in part)
    if tuple(label.shape) != expected:
        raise ValueError(f"expected classes of shape {expected} for {cached.case.name}, got {tuple(label.shape)}")
    classes = label.cpu().numpy()
    found = set(np.unique(classes).tolist())
    if not found <= set(release.label_values):
        raise ValueError(f"expected classes among {sorted(release.label_values)}, got {sorted(found)}")
    labels = np.zeros(cached.shape, np.uint8)
    labels[part] = release.to_labels(classes, np.uint8)
    scan = read_image(cached.case.images[0])
    header = scan.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0  # the range of brightness in viewers
    path = folder / f"{cached.case.name}.nii.gz"
    with atomic_write(path) as file:
        # No time in gzip's header: the same prediction is the same file.
        file.write(gzip.compress(type(scan)(labels, scan.affine, header).to_bytes(), mtime=0))
    return path
