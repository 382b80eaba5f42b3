"""Sparse-view CT of foam phantoms: reconstructions with their true volumes, simulated once and cached."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from src.ct.foam import FoamSpec
from src.ct.simulation import ScanSpec, SimulationSpec
from src.datamodules.cache import exclusive, require_writable, run_parallel
from src.datamodules.foam_volumes import (
    SPLITS,
    FoamVolumes,
    VolumeTask,
    build_volume,
    cache_name,
    cache_parameters,
    find_damage,
    volume_entropy,
)
from src.datamodules.training_loader import TrainingLoader, own_generator
from src.utils.files import TEMPORARY_SUFFIX, atomic_write
from src.utils.processes import available_cpus

CHECKING_THREADS = 4
LOCK_NAME = "generation.lock"


class FoamCTDataModule(pl.LightningDataModule):
    """Filtered backprojections of noisy sparse-view scans ("input") and their truth ("target").

    Batches are dicts of "input" and "target", float32 (B, 1, N, N, N), and "index", int64 (B,). Lengths are in
    half-widths of the scan's cube; a range is one number or (lowest, highest).

    Args:
        data_dir: where the cache folders go.
        size: N, voxels per side; reconstruction and phantom are computed finer and downsized.
        num_train, num_val, num_test: volumes. More of them keep those that exist.
        num_balls, radius, half_height: ranges of the number of holes and of the cylinder's size.
        max_radius, min_radius: bounds of the holes' radii; a full cylinder holds fewer holes than asked for.
        num_trial_points: points that placement starts from; see src.ct.placement.
        num_views, photon_count, attenuation, axis_noise_deg, fbp_filter, detector_size, detector_oversampling,
            fbp_oversampling, truth_oversampling: the scan; see src.ct.simulation.ScanSpec.
        seed: of the data. The order and the augmentation of batches follow the seed of the run.
        batch_size, num_workers, pin_memory: of the data loaders.
        augment: apply a random symmetry of the cube to each training pair.
        generation_workers: processes that simulate; None for one per CPU, 0 for none but this.
        generation_device: where they project, voxelise and backproject; volumes from different devices agree up to
            rounding.

    Raises:
        ValueError: an argument is out of its range.
    """

    data_range = 1.0  # of the truth: air is 0, material 1

    def __init__(
        self,
        data_dir: str = "data/foam_ct",
        size: int = ScanSpec.size,
        num_train: int = 64,
        num_val: int = 8,
        num_test: int = 8,
        num_balls: int | Sequence[int] = FoamSpec.num_balls,
        radius: float | Sequence[float] = FoamSpec.radius,
        half_height: float | Sequence[float] = FoamSpec.half_height,
        max_radius: float = FoamSpec.max_radius,
        min_radius: float = FoamSpec.min_radius,
        num_trial_points: int = FoamSpec.num_trial_points,
        num_views: int = ScanSpec.num_views,
        photon_count: float | None = ScanSpec.photon_count,
        attenuation: float = ScanSpec.attenuation,
        axis_noise_deg: float = ScanSpec.axis_noise_deg,
        fbp_filter: str = ScanSpec.fbp_filter,
        detector_size: int | None = ScanSpec.detector_size,
        detector_oversampling: int = ScanSpec.detector_oversampling,
        fbp_oversampling: int = ScanSpec.fbp_oversampling,
        truth_oversampling: int = ScanSpec.truth_oversampling,
        seed: int = 0,
        batch_size: int = 1,
        num_workers: int = 0,
        augment: bool = True,
        generation_workers: int | None = None,
        generation_device: str = "cpu",
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        low_balls, high_balls = _as_range("num_balls", num_balls)
        foam = FoamSpec(
            num_balls=(int(low_balls), int(high_balls)),
            radius=_as_range("radius", radius),
            half_height=_as_range("half_height", half_height),
            max_radius=float(max_radius),
            min_radius=float(min_radius),
            num_trial_points=num_trial_points,
        )
        if photon_count is not None:  # 500 and 500.0, none and infinitely many are the same data
            photon_count = None if photon_count == math.inf else float(photon_count)
        scan = ScanSpec(
            size=size,
            num_views=num_views,
            photon_count=photon_count,
            attenuation=float(attenuation),
            axis_noise_deg=float(axis_noise_deg),
            fbp_filter=fbp_filter,
            detector_size=detector_size,
            detector_oversampling=detector_oversampling,
            fbp_oversampling=fbp_oversampling,
            truth_oversampling=truth_oversampling,
        )
        at_least_one = {
            "num_train": num_train,
            "num_val": num_val,
            "num_test": num_test,
            "batch_size": batch_size,
        }
        at_least_zero = {"seed": seed, "num_workers": num_workers, "generation_workers": generation_workers or 0}
        for lowest, values in ((1, at_least_one), (0, at_least_zero)):
            for name, value in values.items():
                if value < lowest:
                    raise ValueError(f"expected {name} of at least {lowest}, got {value}")
        self.spec = SimulationSpec(foam, scan)
        self.seed = seed
        self.size = size
        self.num_volumes = dict(zip(SPLITS, (num_train, num_val, num_test), strict=True))
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.augment = augment
        self.generation_workers = available_cpus() if generation_workers is None else generation_workers
        self.generation_device = _checked_device(generation_device)
        self.pin_memory = pin_memory
        self.cache_folder = Path(data_dir) / cache_name(cache_parameters(self.spec, seed))

    def prepare_data(self) -> None:
        """Simulate the volumes that are missing or damaged; one process at a time, the others wait and find them.

        Raises:
            ValueError: volumes are missing, and the cache folder cannot be written.
        """
        if not self._unusable():  # a complete cache may be read-only
            return
        require_writable(self.cache_folder)
        with exclusive(self.cache_folder / LOCK_NAME, f"makes the volumes of {self.cache_folder}"):
            self._build_unusable()

    def _build_unusable(self) -> None:
        for leftover in self.cache_folder.rglob(f"*{TEMPORARY_SUFFIX}"):
            leftover.unlink()  # of an interrupted process: whoever writes holds the lock
        with atomic_write(self.cache_folder / "parameters.json") as file:
            file.write(json.dumps(cache_parameters(self.spec, self.seed), indent=2).encode())
        unusable = self._unusable()
        for damage in unusable.values():
            if damage is not None:
                rank_zero_warn(f"Rebuilding a damaged volume: {damage}")
        tasks = []
        for split in SPLITS:
            (self.cache_folder / split).mkdir(exist_ok=True)
            for index, path in enumerate(self._paths(split)):
                if path in unusable:
                    entropy = volume_entropy(self.seed, split, index)
                    tasks.append(VolumeTask(path, self.spec, entropy, self.generation_device))
        if tasks:
            run_parallel(build_volume, tasks, self.generation_workers, "Simulating CT volumes")

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape (1, N, N, N) of an input and of its target."""
        return (1, self.size, self.size, self.size)

    def _paths(self, split: str) -> list[Path]:
        return [self.cache_folder / split / f"{index:05d}.npz" for index in range(self.num_volumes[split])]

    def _unusable(self) -> dict[Path, str | None]:
        """Return the volumes' files that are missing (None) or damaged (in what way)."""
        paths = [path for split in SPLITS for path in self._paths(split)]
        unusable: dict[Path, str | None] = {path: None for path in paths if not path.exists()}
        present = [path for path in paths if path not in unusable]
        with ThreadPoolExecutor(CHECKING_THREADS) as threads:
            damages = threads.map(lambda path: find_damage(path, self.size), present)
            unusable.update((path, damage) for path, damage in zip(present, damages, strict=True) if damage)
        return unusable

    def _dataloader(self, split: str) -> DataLoader[dict[str, Any]]:
        settings: dict[str, Any] = {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": self.pin_memory,
        }
        if split == "train":
            return TrainingLoader(FoamVolumes(self._paths(split), self.augment), self.trainer, **settings)
        return DataLoader(FoamVolumes(self._paths(split), augment=False), generator=own_generator(), **settings)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return the training pairs, shuffled and, if asked for, augmented."""
        return self._dataloader("train")

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return the validation pairs in fixed order."""
        return self._dataloader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return the test pairs in fixed order."""
        return self._dataloader("test")


def _as_range(name: str, value: float | Sequence[float]) -> tuple[float, float]:
    """Return a number as the range of itself, and a pair as it is."""
    low_high = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(low_high) != 2:
        raise ValueError(f"expected {name} as one number or a pair [low, high], got {value}")
    return float(low_high[0]), float(low_high[1])


def _checked_device(name: str) -> str:
    """Return the name of a device that can be used here, or raise ValueError."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"expected generation_device as a device of this machine, got {name!r}: {error}") from error
    return name
