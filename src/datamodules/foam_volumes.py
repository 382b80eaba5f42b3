"""Simulated scans as files: one per volume, in a folder named after all that shapes them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from src.ct.simulate import SIMULATION_VERSION, Simulation, SimulationSpec, simulate
from src.datamodules.augment import random_cube_symmetry
from src.utils.files import atomic_write

SPLITS = ("train", "val", "test")
# What reading a file that was cut off, overwritten or replaced can raise.
READ_ERRORS = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


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
    """Write the two volumes, the phantom, the axis and the seed as one uncompressed .npz file, which has checksums."""
    arrays: dict[str, Any] = {
        "truth": result.truth,
        "fbp": result.fbp,
        "axis": result.geometry.axis,
        "entropy": np.array(entropy),
        **result.phantom.to_arrays(),
    }
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def find_damage(path: Path, size: int) -> str | None:
    """Return what is wrong with a volume's file, or None: it must read completely and hold two finite volumes."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}  # reading to the end verifies the checksums
            volumes = {name: arrays[name] for name in ("truth", "fbp")}
    except READ_ERRORS as error:
        return f"{type(error).__name__}: {error}"
    for name, volume in volumes.items():
        if volume.shape != (size,) * 3 or volume.dtype != np.float32:
            return f"expected {name} as float32 {(size,) * 3}, got {volume.dtype} {volume.shape}"
        if not math.isfinite(volume.sum(dtype=np.float64)):
            return f"{name} has values that are not finite"
    return None


class FoamVolumes(Dataset[dict[str, Any]]):
    """Pairs of reconstruction ("input") and truth ("target"), each float32 (1, N, N, N), read file by file."""

    def __init__(self, paths: list[Path], augment: bool) -> None:
        self.paths = paths
        self.augment = augment

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with np.load(self.paths[index], allow_pickle=False) as file:
            volumes = torch.from_numpy(np.stack([file["fbp"], file["truth"]]))
        if self.augment:
            volumes = random_cube_symmetry(volumes)
        return {"input": volumes[:1], "target": volumes[1:], "index": index}
