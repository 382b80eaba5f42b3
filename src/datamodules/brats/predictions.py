"""Segmentations as NIfTI files in the place and the labels of the scan."""

from pathlib import Path

from torch import Tensor

from src.datamodules.brats.releases import Release
from src.datamodules.volumes.cases import CachedScan
from src.datamodules.volumes.predictions import write_labels


def write_prediction(cached: CachedScan, label: Tensor, release: Release, folder: Path) -> Path:
    """Write canonical classes (X, Y, Z) of a case's box to ``<folder>/<case>.nii.gz``, and return that path.

    The file has the shape, affine and header of the case's first modality, and the label values of the release.

    Raises:
        ValueError: if the shape is not that of the box, or a class is not the release's.
    """
    return write_labels(cached, label.cpu().numpy(), release.label_values, folder / f"{cached.case.name}.nii.gz")
