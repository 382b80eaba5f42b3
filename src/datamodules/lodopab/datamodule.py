"""LoDoPaB-CT: slices of human chests, their simulated low-dose scans, and reconstructions of these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor
from torch.utils.data import Dataset

from src.ct.fbp import FILTERS
from src.datamodules.conversion import Converted
from src.datamodules.loaders import SplitDataModule
from src.datamodules.lodopab.cache import FBP, CachedShard, lodopab_cache
from src.datamodules.lodopab.demo import LodopabDemo
from src.datamodules.lodopab.files import (
    PARTS,
    PUBLISHED_LENGTHS,
    SLICES_PER_FILE,
    LodopabGeometry,
    Shard,
    find_problems,
    find_shards,
    read_slices,
    to_tensor,
)
from src.datamodules.lodopab.predictions import prediction_name, write_reconstructions
from src.datamodules.problems import Problem, listing, no_folder
from src.invertible.arguments import check_choice
from src.utils.errors import check_range
from src.utils.processes import available_cpus, checked_device

Input = Literal["fbp", "sinogram"]


class LodopabDataModule(SplitDataModule):
    """Pairs of a filtered backprojection or a sinogram ("input") and the true slice ("target"), in published splits.

    Batches are dicts of "input", float32 (B, 1, N, N) or, for sinograms, (B, 1, V, S); "target", float32 (B, 1, N, N),
    in units of the attenuation of 3071 HU; "index", int64 (B,), the place in the part.

    Args:
        data_dir: the folder of the unpacked files.
        input: "fbp" or "sinogram".
        fbp_filter: one of `src.ct.fbp.FILTERS`.
        num_train, num_val, num_test: the first slices of each part; None for all of the published ones.
        size, num_views, num_pixels: N, V and S; those of the published set by default.
        cache_dir: where the filtered backprojections go: 0.5 MB per slice, 22 GB for all.
        batch_size, num_workers, pin_memory: of the data loaders.
        reconstruction_workers: processes that reconstruct; None for one per CPU, 0 to work in this process.
        reconstruction_device: where they reconstruct.
        demo: a synthetic set, which is written below data_dir and used.

    Attributes:
        sample_shape, target_shape: of an input and of a target.

    Raises:
        ValueError: an argument is out of its range.
    """

    data_range = 1.0  # of the truth: from vacuum to 3071 HU

    def __init__(
        self,
        data_dir: str = "data/lodopab",
        input: Input = "fbp",
        fbp_filter: str = "hann",
        num_train: int | None = None,
        num_val: int | None = None,
        num_test: int | None = None,
        size: int = 362,
        num_views: int = 1000,
        num_pixels: int = 513,
        cache_dir: str = "data/lodopab_cache",
        batch_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        reconstruction_workers: int | None = None,
        reconstruction_device: str = "cpu",
        demo: LodopabDemo | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, pin_memory)
        check_choice("input", input, get_args(Input))
        check_choice("fbp_filter", fbp_filter, FILTERS)
        check_range(1, num_train=num_train, num_val=num_val, num_test=num_test)
        check_range(0, reconstruction_workers=reconstruction_workers)
        self.geometry = LodopabGeometry(size, num_views, num_pixels)
        counts = dict(zip(PARTS, (num_train, num_val, num_test), strict=True))
        for split, published in PUBLISHED_LENGTHS.items():
            if demo is None and (counts[split] or published) > published:
                raise ValueError(f"expected num_{split} to be at most {published}, got {counts[split]}")
        if demo is not None and None in counts.values():
            raise ValueError("expected num_train, num_val and num_test as numbers for the demo, got null")
        self.counts = {split: count or PUBLISHED_LENGTHS[split] for split, count in counts.items()}
        self.demo = demo
        folder = Path(data_dir)
        self.data_dir = folder if demo is None else demo.folder(folder, self.geometry, self.counts)
        self.input = input
        self.fbp_filter = fbp_filter
        self.workers = available_cpus() if reconstruction_workers is None else reconstruction_workers
        device = checked_device(reconstruction_device=reconstruction_device)
        self.cache = lodopab_cache(Path(cache_dir), self.data_dir, self.geometry, fbp_filter, device)
        self.target_shape = (1, *self.geometry.truth_shape)
        self.sample_shape = self.target_shape if input == "fbp" else (1, *self.geometry.observation_shape)

    def prepare_data(self) -> None:
        """Write the demo, check the files, and reconstruct the slices, unless that is done already.

        Raises:
            ValueError: files are missing or damaged; the message lists them.
        """
        if self.demo is not None:
            self.demo.write(self.data_dir, self.geometry, self.counts, self.workers)
        elif not self.data_dir.is_dir():
            raise ValueError(
                f"expected data_dir to be a folder with the unpacked files of LoDoPaB-CT "
                f"(https://doi.org/10.5281/zenodo.3384092), got {no_folder(self.data_dir)}. datamodule=lodopab_demo "
                "makes a synthetic set"
            )
        shards = [shard for split in PARTS for shard in self._shards(split)]
        self._report([problem for shard in shards for problem in find_problems(shard, self.geometry)])
        if self.input == "fbp":
            self._reconstructed(shards)

    def dataset(self, split: str) -> "LodopabSlices":
        """Return the pairs of a split."""
        shards = self._shards(split)
        return LodopabSlices(shards, self._reconstructed(shards) if self.input == "fbp" else None)

    def convert(self, values: Tensor) -> Converted:
        """Return an observation (1, V, S) of a file, or an input of the network itself, as the network gets it.

        Raises:
            ValueError: for an image of another shape.
        """
        shape, observation = tuple(values.shape), (1, *self.geometry.observation_shape)
        if self.input == "fbp" and shape == observation:
            return Converted(self.geometry.reconstruct(values, self.fbp_filter))
        if shape != self.sample_shape:
            reconstructed = f", or its filtered backprojection {self.sample_shape}" if self.input == "fbp" else ""
            raise ValueError(f"expected an observation {observation}{reconstructed}, got shape {shape}")
        return Converted(values)

    def prediction_name(self, name: str) -> str:
        """Return the name of the file with the reconstructions of a file of observations."""
        return prediction_name(name)

    def predict_file(self, source: Path, target: Path, infer: Callable[[Tensor], Tensor]) -> None:
        """Write what ``infer`` makes of all observations of a file; raise FileError if it is no file of them."""
        write_reconstructions(source, target, self.geometry, self.fbp_filter if self.input == "fbp" else None, infer)

    def _shards(self, split: str) -> list[Shard]:
        return find_shards(self.data_dir, split, self.counts[split])

    def _reconstructed(self, shards: Sequence[Shard]) -> list[CachedShard]:
        usable, problems = self.cache.prepare(shards, self.workers)
        self._report(problems)
        return usable

    def _report(self, problems: Sequence[Problem]) -> None:
        if not problems:
            return
        packed = sorted(path.name for path in self.data_dir.glob("*.zip"))
        remedy = f" {', '.join(packed)} may have them: unpack them." if packed else ""
        raise ValueError(
            f"expected the files of LoDoPaB-CT in {self.data_dir}, got {len(problems)} problems. Download the files "
            "again, or use only the first slices of each part by datamodule.num_train, num_val and num_test."
            f"{remedy}\n{listing(problems)}"
        )


@dataclass(eq=False)
class LodopabSlices(Dataset[dict[str, Any]]):
    """Pairs of "input" and "target", read one by one; files are opened for each, so that processes share none."""

    shards: Sequence[Shard]
    reconstructed: Sequence[CachedShard] | None  # the inputs; None: sinograms

    def __len__(self) -> int:
        return sum(shard.length for shard in self.shards)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number, place = divmod(index, SLICES_PER_FILE)
        shard = self.shards[number]
        if self.reconstructed is None:
            inputs = read_slices(shard.observation, place, place + 1)
        else:
            inputs = self.reconstructed[number].array(FBP)[place : place + 1]
        targets = read_slices(shard.truth, place, place + 1)
        return {"input": to_tensor(inputs), "target": to_tensor(targets), "index": index}
