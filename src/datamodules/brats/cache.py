"""Preprocessed scans of BraTS: checked, cropped to the brain, z-scored."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms.intensity.array import NormalizeIntensity
from numpy.typing import NDArray

from src.datamodules.brats.reading import read_case
from src.datamodules.brats.releases import BACKGROUND, MODALITIES, Release, find_release
from src.datamodules.cached_files import folder_name
from src.datamodules.case_cache import Preprocessed
from src.datamodules.problems import Problem
from src.datamodules.volumes.box import as_index, used_box
from src.datamodules.volumes.cases import CLASSES, IMAGE, Case, CaseVolumes, ScanCache

# Changes whenever the same scans would give other files.
PREPROCESSING_VERSION = 3


# Mean 0 and deviation 1 over the voxels that are not 0, which stay 0.
z_score = NormalizeIntensity(nonzero=True)


def brats_cache(cache_dir: Path, data_dir: Path, release: Release) -> ScanCache:
    """Return the cache of a folder's scans, below ``cache_dir``."""
    parameters = {
        "preprocessing_version": PREPROCESSING_VERSION,
        "data_dir": str(data_dir.resolve()),
        "release": release.name,
        "label_values": dict(release.label_values),
        "modalities": MODALITIES,
    }
    folder = cache_dir / folder_name(f"{data_dir.resolve().name}-{release.name}", parameters)
    return ScanCache(folder, functools.partial(preprocess, release=release.name))


def preprocess(case: Case, release: str) -> Preprocessed | list[Problem]:
    """Return the part of a case that has the brain and the truth, or the case's problems."""
    volumes = read_case(case, find_release(release))
    if not isinstance(volumes, CaseVolumes):
        return volumes
    used = np.zeros(volumes.images.shape[1:], bool) if volumes.classes is None else volumes.classes != BACKGROUND
    for image in volumes.images:
        used |= image != 0
    box = used_box(used)
    part = as_index(box)
    brains = volumes.images[(slice(None), *part)].copy()
    for brain in brains:  # one by one, to save memory
        brain[...] = z_score(brain)
    arrays: dict[str, NDArray[Any]] = {IMAGE: brains}
    if volumes.classes is not None:
        arrays[CLASSES] = volumes.classes[part]
    oddities = [[oddity.file, oddity.message] for oddity in volumes.oddities]
    return Preprocessed(arrays, {"shape": volumes.images.shape[1:], "box": box, "oddities": oddities})
