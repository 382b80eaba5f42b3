"""Simulated scans as files, one per volume."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from src.ct.simulation import SimulationSpec, simulate
from src.datamodules.split import SPLITS
from src.utils.files import atomic_write
from src.utils.reading import FileError, reading
from src.utils.seal import check_archive, seal

WHOLE = "a whole CT volume"


def volume_path(folder: Path, split: str, index: int) -> Path:
    """Return where a volume of a split lies."""
    return folder / split / f"{index:05d}.npz"


def build_volume(path: Path, spec: SimulationSpec, seed: int, device: str) -> None:
    """Simulate the volume of a `volume_path`, whose random numbers do not depend on how many others there are.

    The file is an uncompressed .npz with a digest; it holds the two volumes, the phantom, the axis and the entropy.
    """
    entropy = seed, SPLITS.index(path.parent.name), int(path.stem)
    result = simulate(spec, np.random.SeedSequence(entropy), device)
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
            for name, volume in read_volumes(path).items():
                if volume.shape != (size,) * 3 or volume.dtype != np.float32:
                    raise ValueError(f"expected {name} as float32 {(size,) * 3}, got {volume.dtype} {volume.shape}")
                if not math.isfinite(volume.sum(dtype=np.float64)):
                    raise ValueError(f"expected finite values in {name}, got infinite ones or NaN")
    except FileError as error:
        return str(error)
    return None


def read_volumes(path: Path) -> dict[str, NDArray[Any]]:
    """Return the reconstruction ("fbp") and the truth of a volume's file, checked by zip's CRCs.

    Raises:
        FileError: if the file is damaged.
    """
    with reading(path, WHOLE), np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in ("fbp", "truth")}


def random_cube_symmetry(volumes: Tensor) -> Tensor:
    """Apply one of the cube's 48 symmetries, drawn uniformly, to all volumes (C, N, N, N) alike.

    A permutation of the axes and a flip of each of them give all 90° rotations and all flips. The draw is from torch's
    global generator; see `src.datamodules.loaders.Seeded`.
    """
    permutation = torch.randperm(3).tolist()
    flips = torch.randint(2, (3,)).tolist()
    permuted = volumes.permute(0, *(1 + axis for axis in permutation))
    return permuted.flip([1 + axis for axis in range(3) if flips[axis]])


@dataclass(eq=False)
class FoamVolumes(Dataset[dict[str, Any]]):
    """Pairs of reconstruction ("input") and truth ("target"), each float32 (1, N, N, N), read file by file."""

    paths: Sequence[Path]
    augment: bool

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        volumes = torch.from_numpy(np.stack(list(read_volumes(self.paths[index]).values())))
        if self.augment:
            volumes = random_cube_symmetry(volumes)
        return {"input": volumes[:1], "target": volumes[1:], "index": index}
