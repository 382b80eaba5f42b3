"""Label maps in the original geometry, as nnU-Net's evaluation reads them."""

from pathlib import Path

import numpy as np
from torch import Tensor

from src.datamodules.nnunet.description import Description
from src.datamodules.nnunet.resampling import resample_classes
from src.datamodules.volumes.cases import IMAGE, CachedScan
from src.datamodules.volumes.predictions import write_labels


def write_prediction(cached: CachedScan, label: Tensor, description: Description, folder: Path) -> Path:
    """Write classes (X, Y, Z) of a preprocessed case to ``<folder>/<case><ending>``, and return that path.

    The file has the shape, affine and header of the case's first image, and the label values of dataset.json.

    Raises:
        ValueError: if the shape is not that of the preprocessed case, or a class is not the set's.
    """
    expected = cached.array(IMAGE).shape[1:]
    if tuple(label.shape) != expected:
        raise ValueError(f"expected classes of shape {expected} for {cached.case.name}, got {tuple(label.shape)}")
    box = [end - first for first, end in cached.facts["box"]]
    classes = resample_classes(label.cpu().numpy().astype(np.uint8), box, cached.facts["thick"])
    ending = next(ending for ending in description.endings if cached.case.images[0].name.endswith(ending))
    return write_labels(cached, classes, description.label_values, folder / f"{cached.case.name}{ending}")
