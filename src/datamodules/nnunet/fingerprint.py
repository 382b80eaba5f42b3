"""What a training set has in common: its median spacing, and the intensities of its foreground."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.datamodules.cached_files import folder_name
from src.datamodules.case_cache import Preprocessed
from src.datamodules.nnunet.description import Description
from src.datamodules.nnunet.reading import read_case
from src.datamodules.problems import Problem
from src.datamodules.volumes.box import used_box
from src.datamodules.volumes.cases import CachedScan, Case, CaseVolumes, ScanCache
from src.utils.reading import read_json, reading

# Changes whenever the same scans would give another fingerprint.
VERSION = 1
INTENSITIES = "intensities"
# nnU-Net's own numbers: foreground voxels of each case, the seed of their choice, the percentiles.
NUM_SAMPLES, SEED, PERCENTILES = 10_000, 1234, (0.5, 99.5)
# If cutting the zeros off leaves less of the cases than this, z-scores leave the zeros out too.
LARGE_BACKGROUND = 0.75


@dataclasses.dataclass(frozen=True)
class Intensities:
    """Mean, standard deviation and percentiles of a channel's foreground."""

    mean: float
    std: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """The median spacing in mm, whether most of a scan is zeros, and the foreground of each channel."""

    spacing: tuple[float, ...]
    zero_background: bool
    channels: tuple[Intensities, ...]

    @classmethod
    def read(cls, path: Path, num_channels: int) -> "Fingerprint":
        """Read a fingerprint.json; raise FileError if it is none, or has another number of channels."""
        expected = f"a fingerprint of {num_channels} channels"
        content = read_json(path, expected)
        with reading(path, expected):
            return cls.of(content, num_channels)

    @classmethod
    def of(cls, content: Mapping[str, Any], num_channels: int) -> "Fingerprint":
        """Return the fingerprint of what `json` returned; raise ValueError for another number of channels."""
        channels = tuple(Intensities(**{k: float(v) for k, v in c.items()}) for c in content["channels"])
        spacing = tuple(map(float, content["spacing"]))
        if len(channels) != num_channels or len(spacing) != 3:
            raise ValueError(f"got {len(channels)} channels and {len(spacing)} axes")
        return cls(spacing, bool(content["zero_background"]), channels)

    def json(self) -> str:
        """Return the content of fingerprint.json."""
        return json.dumps(dataclasses.asdict(self), indent=2)


def fingerprint_cache(cache_dir: Path, data_dir: Path, description: Description) -> ScanCache:
    """Return the cache of what the fingerprint needs of each case."""
    parameters = {
        "version": VERSION,
        "data_dir": str(data_dir.resolve()),
        "label_values": dict(description.label_values),
        "channels": description.channels,
    }
    folder = cache_dir / folder_name(f"{data_dir.resolve().name}-fingerprint", parameters)
    return ScanCache(folder, functools.partial(measure, description=description))


def measure(case: Case, description: Description) -> Preprocessed | list[Problem]:
    """Return a random choice of the foreground's intensities, (C, N), and the geometry; or the case's problems."""
    volumes = read_case(case, description)
    if not isinstance(volumes, CaseVolumes):
        return volumes
    assert volumes.classes is not None
    foreground = volumes.images[:, volumes.classes > 0]
    count = foreground.shape[1]
    chosen = np.random.default_rng(SEED).integers(count, size=NUM_SAMPLES if count else 0)
    box = used_box((volumes.images != 0).any(axis=0))
    kept = np.prod([end - first for first, end in box]) / np.prod(volumes.images.shape[1:])
    facts = {"shape": volumes.images.shape[1:], "spacing": volumes.spacing, "kept": float(kept), "box": box}
    return Preprocessed({INTENSITIES: foreground[:, chosen]}, facts)


def summarise(cases: Sequence[CachedScan]) -> Fingerprint:
    """Return the fingerprint of a set."""
    spacing = np.median([cached.facts["spacing"] for cached in cases], axis=0)
    kept = np.median([cached.facts["kept"] for cached in cases])
    values = np.concatenate([cached.array(INTENSITIES) for cached in cases], axis=1)
    channels = tuple(_describe(channel) for channel in values)
    return Fingerprint(tuple(spacing.round(6).tolist()), bool(kept < LARGE_BACKGROUND), channels)


def _describe(values: NDArray[np.float32]) -> Intensities:
    if not values.size:  # a set without foreground
        return Intensities(0.0, 1.0, 0.0, 1.0)
    exact = values.astype(np.float64)
    return Intensities(float(exact.mean()), float(exact.std()), *np.percentile(exact, PERCENTILES).tolist())
