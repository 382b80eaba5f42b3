"""Simulated scans as files: one per volume, in a folder named after all that shapes them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from src.ct.simulation import SIMULATION_VERSION, Simulation, SimulationSpec, simulate
from src.datamodules.augment import random_cube_symmetry
from src.utils.files import atomic_write
from src.utils.reading import FileError, reading
from src.utils.seal import check_archive, seal

SPLITS = ("train", "val", "test")
WHOLE = "a whole CT volume"


class VolumeTask(NamedTuple):
    """One volume to simulate; all that a worker process needs to know."""

    path: Path
    spec: SimulationSpec
    entropy: tuple[int, ...]
    device: str


def volume_entropy(seed: int, split: str, index: int) -> tuple[int, ...]:
    """Return the entropy of a volume's own random numbers, independent of how many others there are."""
    return seed, SPLITS.index(split), index


def cache_parameters(spec: SimulationSpec, seed: int) -> dict[str, Any]:
    """Return all that shapes the volumes, as plain values for JSON."""
    return {"simulation_version": SIMULATION_VERSION, "seed": seed, **dataclasses.asdict(spec)}


def cache_name(parameters: dict[str, Any]) -> str:
    """Return a readable folder name that differs whenever a parameter does."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
    scan = parameters["scan"]
    return f"size{scan['size']}-views{scan['num_views']}-{digest[:12]}"


def build_volume(task: VolumeTask) -> None:
    """Simulate one volume and write its file."""
    result = simulate(task.spec, np.random.SeedSequence(task.entropy), task.device)
    save_volume(task.path, result, task.entropy)


def save_volume(path: Path, result: Simulation, entropy: tuple[int, ...]) -> None:
    """Write the two volumes, the phantom, the axis and the seed as one uncompressed .npz file with a digest."""
    arrays: dict[str, Any] = {
        "truth": result.truth,
        "fbp": result.fbp,
        "axis": result.geometry.axis,
        "entropy": np.array(entropy),
        **result.phantom.to_arrays(),
    }
    with atomic_write(path) as file:
        np.savez(file, **arrays)
        seal(file)


def find_damage(path: Path, size: int) -> str | None:
    """Return what is wrong with a volume's file, or None: it must be as written and hold two finite volumes."""
    try:
        with reading(path, WHOLE):
            check_archive(path)
            _check_volumes(read_volumes(path), size)
    except FileError as error:
        return str(error)
    return None


def _check_volumes(volumes: dict[str, NDArray[Any]], size: int) -> None:
    for name, volume in volumes.items():
        if volume.shape != (size,) * 3 or volume.dtype != np.float32:
            raise ValueError(f"expected {name} as float32 {(size,) * 3}, got {volume.dtype} {volume.shape}")
        if not math.isfinite(volume.sum(dtype=np.float64)):
            raise ValueError(f"expected finite values in {name}, got some that are not")


def read_volumes(path: Path) -> dict[str, NDArray[Any]]:
    """Return the reconstruction ("fbp") and the truth of a volume's file; what zip's CRCs protect is checked.

    Raises:
        FileError: if the file is damaged.
    """
    with reading(path, WHOLE), np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in ("fbp", "truth")}


class FoamVolumes(Dataset[dict[str, Any]]):
    """Pairs of reconstruction ("input") and truth ("target"), each float32 (1, N, N, N), read file by file."""

    def __init__(self, paths: list[Path], augment: bool) -> None:
        self.paths = paths
        self.augment = augment

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        volumes = torch.from_numpy(np.stack(list(read_volumes(self.paths[index]).values())))
        if self.augment:
            volumes = random_cube_symmetry(volumes)
        return {"input": volumes[:1], "target": volumes[1:], "index": index}
