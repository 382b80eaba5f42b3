"""Segmentations as NIfTI files in the place and the labels of the scan."""

from pathlib import Path

import numpy as np
from torch import Tensor

from src.datamodules.brats.releases import Release
from src.datamodules.volumes.cache import CachedCase
from src.datamodules.volumes.predictions import as_labels
from src.utils.nifti import write_like


def write_prediction(cached: CachedCase, label: Tensor, release: Release, folder: Path) -> Path:
    """Write canonical classes (X, Y, Z) of a case's box to ``<folder>/<case>.nii.gz``, and return that path.

    The file has the shape, affine and header of the case's first modality, and the label values of the release.

    Raises:
        ValueError: if the shape is not that of the box, or a class is not the release's.
    """
    expected = tuple(side.stop - side.start for side in cached.part)
    if tuple(label.shape) != expected:
        raise ValueError(f"expected classes of shape {expected} for {cached.case.name}, got {tuple(label.shape)}")
    part = as_labels(label.cpu().numpy(), release.label_values)
    labels = np.zeros(cached.shape, part.dtype)
    labels[cached.part] = part
    return write_like(cached.case.images[0], labels, folder / f"{cached.case.name}.nii.gz")
