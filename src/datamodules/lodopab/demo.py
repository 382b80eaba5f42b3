"""A small synthetic set in the layout of LoDoPaB-CT: ellipses in place of chests, with exact projections."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from src.ct.noise import add_poisson_noise, check_photon_count
from src.datamodules.cached_files import make_missing, run_parallel
from src.datamodules.demo_folder import demo_folder
from src.datamodules.lodopab.files import (
    DATASET,
    MU_MAX_PER_M,
    PARTS,
    SIDE_M,
    LodopabGeometry,
    Shard,
    find_shards,
)
from src.utils.errors import check_range
from src.utils.files import atomic_write

# Changes whenever the same parameters would give other slices.
DEMO_VERSION = 1
# LoDoPaB-CT reads a pixel that no photon reached as this count.
LEAST_COUNT = 0.1
SAMPLES_PER_SIDE = 3  # of a pixel, whose value is their mean

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Ellipses:
    """Ellipses that add up. Lengths in metres: centres (E, 2) as x and y, half-axes (E, 2); angles and values (E,)."""

    centres: Array
    half_axes: Array
    angles_rad: Array
    values: Array

    def image(self, geometry: LodopabGeometry) -> Array:
        """Return the slice (N, N), indexed [x, y]."""
        fine = geometry.size * SAMPLES_PER_SIDE
        grid = ((np.arange(fine) + 0.5) / fine - 0.5) * SIDE_M
        image = np.zeros((fine, fine))
        for centre, axes, angle, value in zip(self.centres, self.half_axes, self.angles_rad, self.values, strict=True):
            x, y = grid[:, None] - centre[0], grid - centre[1]
            along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
            image += value * ((along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1)
        return image.reshape(geometry.size, SAMPLES_PER_SIDE, geometry.size, SAMPLES_PER_SIDE).mean(axis=(1, 3))

    def line_integrals(self, geometry: LodopabGeometry) -> Array:
        """Return the observation (V, S) without noise: 2 v a b √(w² − u²)/w² with w² = a² cos² ψ + b² sin² ψ.

        ψ is the angle of the view from an ellipse's first axis, and u the distance from its centre's projection.
        """
        s = ((np.arange(geometry.num_pixels) + 0.5) - geometry.num_pixels / 2) * geometry.pixel_m
        views = geometry.angles_rad[:, None]
        total = np.zeros(geometry.observation_shape)
        for (x, y), (a, b), angle, value in zip(
            self.centres, self.half_axes, self.angles_rad, self.values, strict=True
        ):
            width2 = (a * np.cos(views - angle)) ** 2 + (b * np.sin(views - angle)) ** 2
            u = s - (x * np.cos(views) + y * np.sin(views))
            total += 2 * value * a * b * np.sqrt(np.maximum(width2 - u**2, 0)) / width2
        return total


def draw_chest(rng: np.random.Generator, num_details: int) -> Ellipses:
    """Draw a body with two lungs, a heart, a spine, and details in all of them, in units of the attenuation of 3071 HU.

    Tissue has about 0.25, a lung 0.07, bone 0.5.
    """
    body = rng.uniform((0.105, 0.075), (0.12, 0.095))
    lungs = rng.uniform(0.4, 0.5, (2, 2)) * body * (0.75, 1.3)
    side = np.array([[-1.0, 0], [1, 0]])
    organs = [
        (np.zeros(2), body, 0.25),
        (side[0] * body * 0.5, lungs[0], -0.18),
        (side[1] * body * 0.5, lungs[1], -0.18),
        (rng.normal((0.01, 0.015), 0.005), rng.uniform(0.018, 0.03, 2), rng.uniform(0.02, 0.05)),
        (np.array([0, -0.7]) * body, rng.uniform(0.01, 0.014, 2), rng.uniform(0.15, 0.3)),
    ]
    centres, half_axes, values = (np.array(column) for column in zip(*organs, strict=True))
    places = rng.uniform(-0.65, 0.65, (num_details, 2)) * body
    sizes = rng.uniform(0.001, 0.007, (num_details, 2))
    return Ellipses(
        np.concatenate([centres, places]),
        np.concatenate([half_axes, sizes]),
        np.concatenate([rng.normal(0, 0.1, len(organs)), rng.uniform(0, np.pi, num_details)]),
        np.concatenate([values, rng.uniform(0.02, 0.2, num_details)]),
    )


@dataclasses.dataclass(frozen=True)
class LodopabDemo:
    """Parameters of the set; each slice has random numbers of its own, from the seed, its part and its place.

    Args:
        num_details: small ellipses in a slice.
        photon_count: of the unattenuated beam per pixel, 4096 in LoDoPaB-CT; None for no noise.
        seed: of the slices.

    Raises:
        ValueError: a parameter is out of its range.
    """

    num_details: int = 30
    photon_count: float | None = 4096.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(0, num_details=self.num_details, seed=self.seed)
        check_photon_count(self.photon_count)

    def folder(self, data_dir: Path, geometry: LodopabGeometry, counts: Mapping[str, int]) -> Path:
        """Return the set's folder, see `demo_folder`."""
        label = f"demo-{'-'.join(map(str, counts.values()))}"
        return demo_folder(data_dir, label, self._parameters(geometry, counts), "lodopab", ("*.hdf5",))

    def write(self, folder: Path, geometry: LodopabGeometry, counts: Mapping[str, int], num_workers: int) -> None:
        """Write the files that are missing; raise ValueError if the folder cannot be written."""
        parts = {shard: split for split, count in counts.items() for shard in find_shards(folder, split, count)}
        write = functools.partial(self._write, geometry=geometry, parts=parts)
        make_missing(
            folder,
            f"makes the slices of {folder}",
            lambda: {shard: None for shard in parts if not (shard.truth.exists() and shard.observation.exists())},
            lambda missing: run_parallel(write, missing, num_workers, "Making files of synthetic slices"),
            self._parameters(geometry, counts),
        )

    def _parameters(self, geometry: LodopabGeometry, counts: Mapping[str, int]) -> dict[str, Any]:
        own = {"demo_version": DEMO_VERSION, **dataclasses.asdict(self), **dataclasses.asdict(geometry)}
        return own | {"counts": dict(counts)}

    def _write(self, shard: Shard, geometry: LodopabGeometry, parts: Mapping[Shard, str]) -> None:
        """Write a pair of files."""
        truths = np.empty((shard.length, *geometry.truth_shape), np.float32)
        observations = np.empty((shard.length, *geometry.observation_shape), np.float32)
        for place in range(shard.length):
            entropy = self.seed, list(PARTS).index(parts[shard]), shard.first + place
            rng = np.random.default_rng(np.random.SeedSequence(entropy))
            chest = draw_chest(rng, self.num_details)
            integrals = chest.line_integrals(geometry)
            truths[place] = chest.image(geometry)
            observations[place] = add_poisson_noise(integrals, self.photon_count, MU_MAX_PER_M, rng, LEAST_COUNT)
        for path, images in ((shard.truth, truths), (shard.observation, observations)):
            with atomic_write(path) as stream, h5py.File(stream, "w") as hdf5:
                hdf5[DATASET] = images
