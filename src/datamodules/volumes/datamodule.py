"""Volumes with a class per voxel: what BraTS and nnU-Net's format have in common."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.datamodules.cached_files import folder_name
from src.datamodules.case_datamodule import CaseDataModule, CaseOptions
from src.datamodules.conversion import Converted
from src.datamodules.groups import groups_by_name
from src.datamodules.problems import Problem, enumerated
from src.datamodules.split import HELD_OUT, SPLITS, Split, find_split, write_split
from src.datamodules.volumes.cases import CachedScan, Case, ScanCache
from src.datamodules.volumes.crops import CropOptions, RandomCrops, Sample, WholeVolumes

Found = tuple[list[Case], list[Problem]]


class Demo(Protocol):
    """A synthetic set."""

    def folder(self, data_dir: Path) -> Path:
        """Return the set's folder below ``data_dir``."""

    def write(self, folder: Path, num_workers: int) -> None:
        """Write what is missing."""


class SegmentationDataModule(CaseDataModule[Case]):
    """Cases that are checked and preprocessed once, and cached.

    Batches are dicts of "image", float32 (B, C, X, Y, Z); "label", int64 (B, X, Y, Z); "index", int64 (B,), the place
    in the split. Training batches are random crops. The others are one whole case each, and those for prediction have
    no label.

    Args:
        data_dir, predict_dir: the scans to train with and to predict.
        crops: how training crops are drawn.
        options: how the cases are checked, preprocessed and divided; the fractions are of the labelled ones, and
            `find_split` says how seed and split_file act.
        batch_size, num_workers, pin_memory: of the data loaders.
        demo: a synthetic set, which is written below data_dir and used.

    Attributes:
        sample_shape: (C, X, Y, Z), of a training crop.
        modalities: the names of the channels.
        num_classes, class_names: the background is the first class.
        regions: the classes of each region that is scored.
        label_values: the value of each class in the files.
        cases: after setup, the cases of "train", "val", "test" or "predict".

    Raises:
        ValueError: an argument is out of its range.
    """

    modalities: tuple[str, ...]
    class_names: tuple[str, ...]
    regions: dict[str, tuple[int, ...]]
    label_values: dict[int, int]
    # Of a split_file with a list of folds.
    fold = 0
    # Finds the group of a case in its name; see `groups_by_name`.
    group: str | None = None

    def __init__(
        self,
        data_dir: str,
        predict_dir: str | None,
        crops: CropOptions,
        options: CaseOptions,
        batch_size: int,
        num_workers: int,
        pin_memory: bool,
        demo: Demo | None,
    ) -> None:
        folder = Path(data_dir) if demo is None else demo.folder(Path(data_dir))
        super().__init__(folder, options, batch_size, num_workers, pin_memory)
        self.demo = demo
        self.data_dir = folder
        self.predict_dir = None if predict_dir is None else Path(predict_dir)
        self.crops = crops

    @property
    def num_classes(self) -> int:
        """The number of classes, background included."""
        return len(self.label_values)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of a training crop."""
        return (len(self.modalities), *self.crops.size)

    @abstractmethod
    def find_labelled(self) -> Found:
        """Return the cases of data_dir, with and without truth, and the problems of incomplete ones."""

    @abstractmethod
    def find_unlabelled(self) -> Found:
        """Return the cases to predict, with or without truth, and the problems of incomplete ones."""

    @abstractmethod
    def cache_of(self, folder: Path) -> ScanCache:
        """Return the cache of a folder's scans."""

    @abstractmethod
    def save_prediction(self, index: int, label: Tensor, folder: Path) -> Path:
        """Write the classes (X, Y, Z) of a batch, with its "index", as the scan's labels; return the file's path.

        Raises:
            ValueError: if the shape is not the batch's, or a class is not the data's.
        """

    def convert(self, values: Tensor) -> Converted:
        """Return a scan with the values of its files, (C, X, Y, Z), preprocessed, and the way back to its labels.

        Raises:
            ValueError: if preprocessing needs more than these values.
        """
        raise ValueError(
            f"expected files of {self.kind}, whose preprocessing needs the size of the voxels: predict.py with "
            "input=<folder of cases>; run.task.infer(x) takes preprocessed volumes (1, C, X, Y, Z)"
        )

    def preprocess(self, cases: Sequence[Case]) -> tuple[list[CachedScan], list[Problem]]:
        """Return the usable ones of data_dir's labelled cases, preprocessed, and the problems of the others."""
        return self.cache_of(self.data_dir).prepare(cases, self.preprocessing_workers)

    def split_folder(self) -> Path:
        """Return the folder of the split that is drawn."""
        return self.cache_of(self.data_dir).folder

    def groups(self, names: Sequence[str]) -> dict[str, str]:
        """Return the group of each labelled case, such as its patient; a split that is drawn divides none.

        Raises:
            ValueError: if a name does not tell it.
        """
        return groups_by_name(names, self.group)

    def prepare_data(self) -> None:
        """Write the demo, check and preprocess the scans, and draw the split, unless that is done already.

        Raises:
            ValueError: there are bad cases, and skip_bad_cases is false; the message lists the problems.
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
        """Return the samples of a split: random crops to train with, otherwise whole cases."""
        if split != "train":
            return WholeVolumes(self.cases[split], labelled=split != "predict")
        return RandomCrops(self.cases["train"], self.crops)

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Return the cases to predict, whole and one by one, without labels."""
        return self.loader("predict")

    def _prepare_labelled(self) -> dict[str, list[CachedScan]]:
        """Return the usable cases of each part of the split. Bad ones are drawn too, so that skipping moves no case."""
        found, problems = self.find_labelled()
        labelled = [case for case in found if case.truth is not None]
        unlabelled = [case.name for case in found if case.truth is None]
        if unlabelled:
            self.note(f"{len(unlabelled)} cases have no truth and are for prediction only: {enumerated(unlabelled)}")
        names = sorted({case.name for case in labelled} | {problem.case for problem in problems})
        groups = self.groups(names)  # before hours of preprocessing: a name may not tell its group
        usable, more = self.preprocess(labelled)
        self.report([*problems, *more], self.data_dir)
        self.note_oddities(usable)
        split = self._split(groups)
        by_name = {cached.case.name: cached for cached in usable}
        parts = {part: [by_name[name] for name in split[part] if name in by_name] for part in SPLITS}
        for part, members in parts.items():
            if not members:
                raise ValueError(f"expected usable cases with truth for {part} in {self.data_dir}, got none")
        return parts

    def _prepare_unlabelled(self) -> list[CachedScan]:
        found, problems = self.find_unlabelled()
        folder = self.predict_dir or self.data_dir
        cache = self.cache_of(folder)
        # The arrays that training has made are used again; otherwise the truth, which may be bad, is not read.
        cases = [case if cache.has(case) else case._replace(truth=None) for case in found]
        usable, more = cache.prepare(cases, self.preprocessing_workers)
        self.report([*problems, *more], folder)
        self.note_oddities(usable)
        return usable

    def note_oddities(self, cases: Sequence[CachedScan]) -> None:
        """Warn of what is unusual about usable cases."""

    def _split(self, groups: Mapping[str, str]) -> Split:
        path = self.split_file
        if path is None:
            name = "split-val{:g}-test{:g}-seed{}".format(*self.fractions, self.seed)
            name = name if self.group is None else folder_name(name, {"group": self.group})
            path = self.split_folder() / f"{name}.json"
        elif not path.exists():
            self.note(f"There is no {path} yet (datamodule.split_file): a split is drawn and written there")
        is_own = self.split_file is not None and path.exists()
        trained = None if is_own else self.held_out.split(sorted(groups), groups)
        if trained is not None and not path.exists():
            write_split(path, trained)
        split = find_split(path, list(groups), *self.fractions, self.seed, self.fold, groups)
        kept = self.held_out.parts  # without new scans of their groups, which an earlier file lacks
        if trained is not None and any(split[part] not in (kept[part], trained[part]) for part in HELD_OUT):
            self.note(f"The cases for validation and test are those of the training, not those of {path}")
            split = trained
        self.held_out.parts = {part: split[part] for part in HELD_OUT}
        self.check_split(split, groups, path)
        return split
