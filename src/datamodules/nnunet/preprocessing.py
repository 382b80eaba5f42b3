"""Preprocessed cases of a set in nnU-Net's format: cut to what is not 0, normalised by modality, resampled."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from src.datamodules.cached_files import folder_name
from src.datamodules.case_cache import Preprocessed
from src.datamodules.nnunet.description import Description
from src.datamodules.nnunet.fingerprint import Fingerprint, Intensities
from src.datamodules.nnunet.reading import read_case
from src.datamodules.nnunet.resampling import resample_classes, resample_image, resampled_shape, thick_axis
from src.datamodules.problems import Problem
from src.datamodules.volumes.box import as_index, used_box
from src.datamodules.volumes.cases import CLASSES, IMAGE, Case, CaseVolumes, ScanCache

# Changes whenever the same scans would give other arrays.
VERSION = 1
# How a channel is normalised if its name, in small letters, is one of these; z_score otherwise. nnU-Net's names.
BY_NAME = {"ct": "ct", "nonorm": "none", "rescale_to_0_1": "unit", "rgb_to_0_1": "rgb"}
NORMALISATIONS = ("z_score", "ct", "none", "unit", "rgb")
# How far spacings may differ, relatively, without resampling.
SPACING_TOLERANCE = 0.01
# The least standard deviation that a z-score divides by.
LEAST_STD = 1e-8


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What is done with every case.

    Attributes:
        spacing: of the voxels in mm; None to keep that of the files.
        normalisations: of each channel, one of NORMALISATIONS.
        fingerprint: of the training set.
    """

    spacing: tuple[float, ...] | None
    normalisations: tuple[str, ...]
    fingerprint: Fingerprint

    def apply(self, case: Case, description: Description) -> Preprocessed | list[Problem]:
        """Return the arrays of a case, or its problems."""
        volumes = read_case(case, description)
        if not isinstance(volumes, CaseVolumes):
            return volumes
        errors = self.spacing_errors(volumes.spacing)
        if errors:
            return [Problem(case.name, case.images[0].name, message) for message in errors]
        inside = binary_fill_holes((volumes.images != 0).any(axis=0))
        used = inside if volumes.classes is None else inside | (volumes.classes > 0)
        box = used_box(used)
        part = as_index(box)
        image = volumes.images[(slice(None), *part)].copy()
        for channel, kind, known in zip(image, self.normalisations, self.fingerprint.channels, strict=True):
            normalise(channel, kind, known, inside[part] if self.fingerprint.zero_background else None)
        target = self.spacing or volumes.spacing
        shape, thick = resampled_shape(image.shape[1:], volumes.spacing, target), thick_axis(volumes.spacing, target)
        arrays: dict[str, NDArray[Any]] = {IMAGE: resample_image(image, shape, thick)}
        if volumes.classes is not None:
            arrays[CLASSES] = resample_classes(volumes.classes[part], shape, thick)
        facts = {"shape": volumes.images.shape[1:], "box": box, "thick": thick}
        return Preprocessed(arrays, facts)

    def spacing_errors(self, spacing: Sequence[float]) -> list[str]:
        """Return why a case that is not resampled does not fit to the others."""
        if self.spacing is not None or np.allclose(spacing, self.fingerprint.spacing, rtol=SPACING_TOLERANCE):
            return []
        expected, found = (" × ".join(f"{side:.4g}" for side in sides) for sides in (self.fingerprint.spacing, spacing))
        message = f"expected voxels of {expected} mm, the median of the training set, got {found} mm"
        return [f"{message}; datamodule.spacing=median resamples them"]


def normalisations_of(description: Description, chosen: Sequence[str] | None) -> tuple[str, ...]:
    """Return the normalisation of each channel: the chosen ones, or those that nnU-Net takes by their names.

    Raises:
        ValueError: for another number of them, and unknown ones.
    """
    if chosen is None:
        return tuple(BY_NAME.get(name.lower(), "z_score") for name in description.channels)
    if len(chosen) != len(description.channels) or not set(chosen) <= set(NORMALISATIONS):
        raise ValueError(
            f"expected normalisation as one of {', '.join(NORMALISATIONS)} for each of the channels "
            f"{', '.join(description.channels)}, got {list(chosen)}"
        )
    return tuple(chosen)


def preprocessing_cache(
    cache_dir: Path, folder: Path, description: Description, preprocessing: Preprocessing
) -> ScanCache:
    """Return the cache of a folder's cases."""
    parameters = {
        "version": VERSION,
        "folder": str(folder.resolve()),
        "label_values": dict(description.label_values),
        "channels": description.channels,
        "plan": dataclasses.asdict(preprocessing),
    }
    name = folder_name(folder.resolve().name, parameters)
    return ScanCache(cache_dir / name, functools.partial(preprocessing.apply, description=description))


def normalise(image: NDArray[np.float32], kind: str, known: Intensities, mask: NDArray[np.bool_] | None) -> None:
    """Normalise a channel in place.

    ``ct``: (clip(x, low, high) − mean) / std with the foreground of the training set. ``z_score``: (x − mean) / std of
    the case, where there is a mask within it, and 0 outside. ``unit``: from 0 to 1. ``rgb``: x / 255. ``none``: x.
    """
    if kind == "ct":
        image[...] = (np.clip(image, known.low, known.high) - known.mean) / max(known.std, LEAST_STD)
    elif kind == "z_score":
        inside = image if mask is None else image[mask]
        mean, std = inside.mean(dtype=np.float64), max(inside.std(dtype=np.float64), LEAST_STD)
        image[...] = (image - mean) / std if mask is None else np.where(mask, (image - mean) / std, 0)
    elif kind == "unit":
        image -= image.min()
        image /= max(float(image.max()), LEAST_STD)
    elif kind == "rgb":
        image /= 255
