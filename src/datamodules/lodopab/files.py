"""The files of LoDoPaB-CT: their names, shapes and geometry, and what is wrong with them.

Source: J. Leuschner et al.: LoDoPaB-CT, a benchmark dataset for low-dose computed tomography reconstruction (2021),
doi 10.5281/zenodo.3384092. The geometry is that of the authors' package DIVal, which makes it with ODL.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.ct.slices import reconstruct_slices
from src.datamodules.problems import Problem
from src.utils.errors import check_range
from src.utils.reading import FileError, reading

# The parts as the files name them, and their published numbers of slices.
PARTS = {"train": "train", "val": "validation", "test": "test"}
PUBLISHED_LENGTHS = {"train": 35820, "val": 3522, "test": 3553}
SLICES_PER_FILE = 128
# Bounds the memory: 16 observations of the published size are 33 MB.
SLICES_PER_BLOCK = 16
DATASET = "data"
SIDE_M = 0.26  # of a slice
# Truths are in units of the attenuation of 3071 HU, where water has 20 and air 0.02 per metre.
MU_MAX_PER_M = 3071 * (20 - 0.02) / 1000 + 20


@dataclass(frozen=True)
class LodopabGeometry:
    """Views at (i + 1/2) π/V, i < V, of a square of 26 cm by a detector as long as the diagonal.

    Slices are indexed [x, y]. At angle φ the detector coordinate is s = x cos φ + y sin φ. Observations are line
    integrals in metres of slices in units of μ_max.

    Args:
        size: N, pixels per side of a slice.
        num_views: V.
        num_pixels: S, of the detector.

    Raises:
        ValueError: a number is not positive.
    """

    size: int = 362
    num_views: int = 1000
    num_pixels: int = 513

    def __post_init__(self) -> None:
        check_range(1, size=self.size, num_pixels=self.num_pixels)
        check_range(2, num_views=self.num_views)

    @property
    def truth_shape(self) -> tuple[int, int]:
        return self.size, self.size

    @property
    def observation_shape(self) -> tuple[int, int]:
        return self.num_views, self.num_pixels

    @property
    def angles_rad(self) -> NDArray[np.float64]:
        return (np.arange(self.num_views) + 0.5) * np.pi / self.num_views

    @property
    def pixel_m(self) -> float:
        """Width of a pixel of the detector."""
        return math.sqrt(2) * SIDE_M / self.num_pixels

    def reconstruct(self, observations: Tensor, filter_name: str) -> Tensor:
        """Return the filtered backprojections (B, N, N) of observations (B, V, S)."""
        slices = reconstruct_slices(
            observations / self.pixel_m,
            self.angles_rad,
            size=self.size,
            pixel_width=SIDE_M / self.size / self.pixel_m,
            filter_name=filter_name,
        )
        return slices.rot90(-1, (1, 2))  # from rows along −y and columns along x


class Shard(NamedTuple):
    """A pair of files, of which the first ``length`` slices are used."""

    truth: Path
    observation: Path
    first: int  # the place of its first slice in the part
    length: int

    @property
    def name(self) -> str:
        """Part and number of the file."""
        return self.truth.name.removeprefix("ground_truth_").removesuffix(".hdf5")

    @property
    def stem(self) -> str:
        """Another one when fewer slices are used, so that a run with fewer leaves the others' files alone."""
        return f"fbp_{self.name}" if self.length == SLICES_PER_FILE else f"fbp_{self.name}_first_{self.length}"

    @property
    def files(self) -> tuple[Path, Path]:
        """Truths and observations."""
        return self.truth, self.observation


def find_shards(folder: Path, split: str, count: int) -> list[Shard]:
    """Return the pairs of files with the first ``count`` slices of a part, whether they exist or not."""
    shards = []
    for first in range(0, count, SLICES_PER_FILE):
        ending = f"{PARTS[split]}_{first // SLICES_PER_FILE:03d}.hdf5"
        truth, observation = (folder / f"{kind}_{ending}" for kind in ("ground_truth", "observation"))
        shards.append(Shard(truth, observation, first, min(SLICES_PER_FILE, count - first)))
    return shards


def find_problems(shard: Shard, geometry: LodopabGeometry) -> Iterator[Problem]:
    """Yield what is wrong with the headers of a pair of files."""
    for path, shape in ((shard.truth, geometry.truth_shape), (shard.observation, geometry.observation_shape)):
        try:
            check_header(path, shape, shard.length)
        except FileError as error:
            yield Problem(shard.name, path.name, str(error))


def check_header(path: Path, shape: tuple[int, int], count: int) -> None:
    """Raise FileError unless a file has enough slices; the last truths of a part are followed by unused ones."""
    expected = f"an HDF5 file of LoDoPaB-CT, {DATASET!r} with {count} or more float32 images of shape {shape}"
    with reading(path, expected), h5py.File(path, "r") as file:
        if DATASET not in file:
            raise ValueError(f"no {DATASET!r}, but {', '.join(file) or 'nothing'}")
        data = file[DATASET]
        if not isinstance(data, h5py.Dataset) or data.dtype.kind != "f":
            raise ValueError(f"no floating-point numbers, but {getattr(data, 'dtype', 'a group')}")
        if data.shape[1:] != shape or data.shape[0] < count:
            raise ValueError(f"shape {data.shape}")


def num_slices(path: Path) -> int:
    """Return how many images a file has."""
    with reading(path, "an HDF5 file of LoDoPaB-CT"), h5py.File(path, "r") as file:
        return len(file[DATASET])


def read_slices(path: Path, start: int, stop: int) -> NDArray[np.float32]:
    """Return some images of a file, (stop − start, …); raise FileError if they are damaged or not finite."""
    with reading(path, "an HDF5 file of LoDoPaB-CT"):
        with h5py.File(path, "r") as file:
            images = np.asarray(file[DATASET][start:stop], np.float32)
        finite = np.isfinite(images).all(axis=(1, 2))
        if not finite.all():
            indices = ", ".join(map(str, start + np.flatnonzero(~finite)))
            raise ValueError(f"infinite or NaN values in images {indices}")
    return images


def to_tensor(images: NDArray[np.float32]) -> Tensor:
    """Return an array of the disk as a tensor of its own."""
    return torch.from_numpy(np.array(images, np.float32))
