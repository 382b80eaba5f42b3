"""BraTS: brain tumours in MR scans of four modalities, in the layouts of its releases."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.datamodules.brats.cache import BratsCache, CachedCase
from src.datamodules.brats.cases import Problem, find_cases
from src.datamodules.brats.crops import Augmentation, BratsCrops, BratsVolumes, Sample
from src.datamodules.brats.demo import DEMO_RELEASE, BratsDemo
from src.datamodules.brats.predictions import write_prediction
from src.datamodules.brats.releases import CLASS_NAMES, MODALITIES, find_release
from src.datamodules.brats.split import SPLITS, find_split
from src.datamodules.loaders import SplitDataModule
from src.utils.errors import check_range
from src.utils.processes import available_cpus


class BratsDataModule(SplitDataModule):
    """Scans of BraTS with their tumours, checked, cropped to the brain and z-scored once, and cached.

    Batches are dicts of "image", float32 (B, 4, X, Y, Z), the MODALITIES, each with mean 0 and deviation 1 over its
    voxels that are not 0; "label", int64 (B, X, Y, Z), classes 0 background, 1 necrosis and non-enhancing core,
    2 edema, 3 enhancing tumour and, in 2024 only, 4 resection cavity, whatever their values in the release; "index",
    int64 (B,), the place in the split. Training batches are random crops. The others are one whole brain each, and
    those for prediction have no label.

    Args:
        data_dir: the folder of the scans; cases are found at any depth. Cases without truth are for prediction only.
        release: the year, 2017 to 2021, 2023 or 2024: how files are named, and what the values of the truth mean;
            "2017-et3" to "2021-et3" if the truth has 3 where the organisers have 4, as in preprocessed copies.
        predict_dir: the scans to predict; None for data_dir.
        cache_dir: where the preprocessed scans go, uncompressed: about 55 MB for one of 240×240×155 voxels.
        size: voxels of a training crop along each axis.
        tumour_probability: how often a crop is centred at a voxel of a tumour class; see `draw_crop`.
        augment: flip training crops and change their intensities.
        intensity_scale, intensity_shift, noise_std: by how much; see `Augmentation`.
        val_fraction, test_fraction: of the labelled cases. The paper has 0.09 and, as there is no public truth for a
            test set, 0.0, which tests with the validation cases that also choose the checkpoint.
        seed: of the split. The order of cases, crops and augmentation follow the seed of the run.
        split_file: of the split; a file that exists is read, whatever the fractions. None for a file in the cache.
        skip_bad_cases: leave out incomplete and invalid cases.
        batch_size: of training.
        num_workers, pin_memory: of the data loaders.
        preprocessing_workers: processes that check and preprocess; None for one per CPU, 0 to work in this process.
        demo: a synthetic set, which is written below data_dir and used.

    Attributes:
        sample_shape: (4, X, Y, Z), of a training crop.
        num_classes, class_names: the background is the first class.
        regions: the classes of each region that is scored, in the order of the paper's table.
        label_values: the value of each class in the release's files.
        cases: after setup, the cases of "train", "val", "test" or "predict".

    Raises:
        ValueError: an argument is out of its range.
    """

    modalities = MODALITIES

    def __init__(
        self,
        data_dir: str = "data/brats",
        release: int | str = 2018,
        predict_dir: str | None = None,
        cache_dir: str = "data/brats_cache",
        size: Sequence[int] = (160, 192, 128),
        tumour_probability: float = 0.5,
        augment: bool = True,
        intensity_scale: float = 0.1,
        intensity_shift: float = 0.1,
        noise_std: float = 0.0,
        val_fraction: float = 0.09,
        test_fraction: float = 0.09,
        seed: int = 0,
        split_file: str | None = None,
        skip_bad_cases: bool = False,
        batch_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        preprocessing_workers: int | None = None,
        demo: BratsDemo | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, pin_memory)
        self.release = find_release(release)
        if len(size) != 3 or min(size) < 1:
            raise ValueError(f"expected size as three positive numbers of voxels, got {list(size)}")
        check_range(0, 1, tumour_probability=tumour_probability)
        check_range(0, 0.5, val_fraction=val_fraction, test_fraction=test_fraction)
        check_range(0, intensity_scale=intensity_scale, intensity_shift=intensity_shift, noise_std=noise_std)
        check_range(0, seed=seed, preprocessing_workers=preprocessing_workers)
        if demo is not None and self.release.name != DEMO_RELEASE:
            raise ValueError(f"expected release {DEMO_RELEASE}, the layout of the demo, got {release}")
        self.label_values = dict(self.release.label_values)
        self.regions = dict(self.release.regions)
        self.num_classes = len(self.label_values)
        self.class_names = CLASS_NAMES[: self.num_classes]
        self.demo = demo
        self.data_dir = Path(data_dir) if demo is None else demo.folder(Path(data_dir))
        self.predict_dir = self.data_dir if predict_dir is None else Path(predict_dir)
        self.cache_dir = Path(cache_dir)
        self.size = tuple(size)
        self.sample_shape = (len(MODALITIES), *size)
        self.tumour_probability = tumour_probability
        self.intensities = (intensity_scale, intensity_shift, noise_std) if augment else None
        self.fractions = (val_fraction, test_fraction)
        self.seed = seed
        self.split_file = None if split_file is None else Path(split_file)
        self.skip_bad_cases = skip_bad_cases
        self.preprocessing_workers = available_cpus() if preprocessing_workers is None else preprocessing_workers
        self.cases: dict[str, list[CachedCase]] = {}
        self._said: set[str] = set()

    def prepare_data(self) -> None:
        """Write the demo, check and preprocess the scans, and draw the split, unless that is done already.

        Raises:
            ValueError: there are bad cases, and skip_bad_cases is false; the message lists every problem.
        """
        if self.demo is not None:
            self.demo.write(self.data_dir, self.preprocessing_workers)
        if self.trainer is not None and self.trainer.predicting:
            self._prepare_unlabelled()
        else:
            self._prepare_labelled()

    def setup(self, stage: str | None = None) -> None:
        """Find the cases of a stage, which `prepare_data` has made; raise ValueError as it does."""
        if stage == "predict":
            self.cases["predict"] = self._prepare_unlabelled()
        elif not set(SPLITS) <= set(self.cases):
            self.cases |= self._prepare_labelled()

    def dataset(self, split: str) -> Dataset[Sample]:
        """Return the samples of a split: random crops to train with, otherwise whole brains."""
        if split != "train":
            return BratsVolumes(self.cases[split], labelled=split != "predict")
        augmentation = None if self.intensities is None else Augmentation(*self.intensities)
        return BratsCrops(self.cases["train"], self.size, self.tumour_probability, augmentation)

    def settings(self, split: str) -> dict[str, Any]:
        """Return the arguments of a split's DataLoader; whole brains come one by one."""
        return super().settings(split) | ({} if split == "train" else {"batch_size": 1})

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Return the cases of predict_dir, with or without truth, whole and one by one, without labels."""
        return self.loader("predict")

    def case_name(self, split: str, index: int) -> str:
        """Return the name of a case by a batch's "index"; ``split`` may be "predict" too."""
        return self.cases[split][int(index)].case.name

    def save_prediction(self, index: int, label: Tensor, folder: Path) -> Path:
        """Write the classes (X, Y, Z) of a batch, with its "index", as labels to ``<folder>/<case>.nii.gz``.

        Raises:
            ValueError: if the shape is not the batch's, or a class is not the release's.
        """
        return write_prediction(self.cases["predict"][int(index)], label, self.release, folder)

    def _prepare_labelled(self) -> dict[str, list[CachedCase]]:
        """Return the usable cases of each part of the split. Bad ones are drawn too, so that skipping moves no case."""
        found, problems = find_cases(self.data_dir, self.release)
        labelled = [case for case in found if case.truth is not None]
        unlabelled = [case.name for case in found if case.truth is None]
        if unlabelled:
            self._note(f"{len(unlabelled)} cases have no truth and are for prediction only: {_enumerate(unlabelled)}")
        names = sorted({case.name for case in labelled} | {problem.case for problem in problems})
        usable, more = self._cache(self.data_dir).prepare(labelled, self.preprocessing_workers)
        self._report([*problems, *more], self.data_dir)
        self._note_oddities(usable)
        split = self._split(names)
        by_name = {cached.case.name: cached for cached in usable}
        parts = {part: [by_name[name] for name in split[part] if name in by_name] for part in SPLITS}
        for part, members in parts.items():
            if not members:
                raise ValueError(f"expected usable cases with truth for {part} in {self.data_dir}, got none")
        return parts

    def _prepare_unlabelled(self) -> list[CachedCase]:
        found, problems = find_cases(self.predict_dir, self.release)
        cache = self._cache(self.predict_dir)
        # The arrays that training has made are used again; otherwise the truth, which may be bad, is not read.
        cases = [case if cache.has(case) else case._replace(truth=None) for case in found]
        usable, more = cache.prepare(cases, self.preprocessing_workers)
        self._report([*problems, *more], self.predict_dir)
        self._note_oddities(usable)
        return usable

    def _cache(self, folder: Path) -> BratsCache:
        return BratsCache(self.cache_dir, folder, self.release)

    def _report(self, problems: Sequence[Problem], folder: Path) -> None:
        if not problems:
            return
        count = len({problem.case for problem in problems})
        listing = "\n".join(f"  {problem.case}: {problem.file}: {problem.message}" for problem in problems)
        if self.skip_bad_cases:
            self._note(f"Skipping {count} bad cases of {folder}:\n{listing}")
            return
        raise ValueError(
            f"expected complete, valid cases of BraTS {self.release.name} in {folder}, got {count} that are incomplete "
            f"or invalid. datamodule.skip_bad_cases=true skips them.\n{listing}"
        )

    def _note_oddities(self, cases: Sequence[CachedCase]) -> None:
        oddities = [oddity for cached in cases for oddity in cached.oddities]
        if oddities:
            listing = _enumerate([f"{oddity.file}: {oddity.message}" for oddity in oddities], separator="\n  ")
            self._note(
                f"The background of {len(oddities)} scans is not 0, and their z-scores include it. BraTS has 0 outside "
                f"of the brain.\n  {listing}"
            )

    def _note(self, message: str) -> None:
        if message not in self._said:  # setup finds the same as prepare_data
            self._said.add(message)
            rank_zero_warn(message)

    def _split(self, names: Sequence[str]) -> dict[str, list[str]]:
        path = self.split_file
        if path is None:
            fractions = "val{:g}-test{:g}".format(*self.fractions)
            path = self._cache(self.data_dir).folder / f"split-{fractions}-seed{self.seed}.json"
        split = find_split(path, names, *self.fractions, self.seed)
        left_out = sorted(set(names) - {name for part in split.values() for name in part})
        if left_out:
            self._note(f"{len(left_out)} cases are in no part of {path} and are not used: {_enumerate(left_out)}")
        return split


def _enumerate(names: Sequence[str], shown: int = 10, separator: str = ", ") -> str:
    return separator.join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
