"""Sparse-view CT of foam phantoms: reconstructions with their true volumes, simulated once and cached."""

import dataclasses
import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from src.ct.foam import FoamSpec
from src.ct.simulation import SIMULATION_VERSION, ScanSpec, SimulationSpec
from src.datamodules.cached_files import folder_name, make_missing, run_parallel
from src.datamodules.foam_volumes import FoamVolumes, build_volume, find_damage, volume_path
from src.datamodules.loaders import SplitDataModule
from src.datamodules.split import SPLITS
from src.utils.errors import check_range
from src.utils.processes import available_cpus, checked_device

CHECKING_THREADS = 4
MOST_ON_A_GPU = 2  # processes, unless the configuration says otherwise


class FoamCTDataModule(SplitDataModule):
    """Filtered backprojections of noisy sparse-view scans ("input") and their truth ("target").

    Batches are dicts of "input" and "target", float32 (B, 1, N, N, N), and "index", int64 (B,).

    Args:
        data_dir: where the cache folders go.
        foam: what the phantoms are drawn from.
        scan: how they are scanned and reconstructed; its size is N.
        num_train, num_val, num_test: volumes. A larger number keeps the volumes that exist.
        seed: of the data. The order and the augmentation of batches follow the seed of the run.
        batch_size, num_workers, pin_memory: of the data loaders.
        augment: apply a random symmetry of the cube to each training pair.
        generation_workers: processes that simulate; 0 to simulate in this process. None for one per CPU, or for at most
            two on a GPU, which they share: each holds a whole scan and the driver's own half a gigabyte there.
        generation_device: where they project, voxelise and backproject; volumes from different devices agree up to
            rounding.

    Raises:
        ValueError: an argument is out of its range.
    """

    data_range = 1.0  # of the truth: air is 0, material 1

    def __init__(
        self,
        data_dir: str = "data/foam_ct",
        foam: FoamSpec | None = None,
        scan: ScanSpec | None = None,
        num_train: int = 64,
        num_val: int = 8,
        num_test: int = 8,
        seed: int = 0,
        batch_size: int = 1,
        num_workers: int = 0,
        augment: bool = True,
        generation_workers: int | None = None,
        generation_device: str = "cpu",
        pin_memory: bool = False,
    ) -> None:
        super().__init__(batch_size, num_workers, pin_memory)
        check_range(1, num_train=num_train, num_val=num_val, num_test=num_test)
        check_range(0, seed=seed, generation_workers=generation_workers)
        self.spec = SimulationSpec(foam or FoamSpec(), scan or ScanSpec())
        self.seed = seed
        self.size = self.spec.scan.size
        self.sample_shape = (1, self.size, self.size, self.size)
        self.num_volumes = dict(zip(SPLITS, (num_train, num_val, num_test), strict=True))
        self.augment = augment
        self.generation_device = checked_device(generation_device=generation_device)
        most = available_cpus() if self.generation_device == "cpu" else min(available_cpus(), MOST_ON_A_GPU)
        self.generation_workers = most if generation_workers is None else generation_workers
        self._parameters = {"simulation_version": SIMULATION_VERSION, "seed": seed, **dataclasses.asdict(self.spec)}
        label = f"size{self.size}-views{self.spec.scan.num_views}"
        self.cache_folder = Path(data_dir) / folder_name(label, self._parameters)

    def prepare_data(self) -> None:
        """Simulate the volumes that are missing or damaged; raise ValueError if their folder cannot be written."""
        activity = f"makes the volumes of {self.cache_folder}"
        make_missing(self.cache_folder, activity, self._find_unusable, self._simulate, self._parameters)

    def dataset(self, split: str) -> FoamVolumes:
        """Return the pairs of a split."""
        return FoamVolumes(self._paths(split), augment=self.augment and split == "train")

    def _paths(self, split: str) -> list[Path]:
        return [volume_path(self.cache_folder, split, index) for index in range(self.num_volumes[split])]

    def _find_unusable(self) -> dict[Path, str | None]:
        paths = [path for split in SPLITS for path in self._paths(split)]
        missing = {path: None for path in paths if not path.exists()}
        present = [path for path in paths if path not in missing]
        with ThreadPoolExecutor(CHECKING_THREADS) as threads:
            damages = zip(present, threads.map(lambda path: find_damage(path, self.size), present), strict=True)
            return {**missing, **{path: damage for path, damage in damages if damage is not None}}

    def _simulate(self, paths: Sequence[Path]) -> None:
        build = functools.partial(build_volume, spec=self.spec, seed=self.seed, device=self.generation_device)
        run_parallel(build, paths, self.generation_workers, "Simulating CT volumes")
