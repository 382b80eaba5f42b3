"""Predicted label maps as files, one per case."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Subset

from src.runs.predictions.folder import PredictionFolder

SUFFIXES = (".nii.gz", ".nii")


class PredictionWriter(pl.Callback):
    """Writes each predicted label map as ``<folder>/<case>.nii.gz``, by the datamodule.

    Args:
        folder: of the files.
        origin: what all label maps in the folder have in common, such as the checkpoint; as JSON keeps it.
        overwrite: whether existing label maps may be replaced.

    Attributes:
        num_written: number of label maps that this process wrote.

    Raises:
        ValueError: if the folder has label maps of another origin that may not be replaced.
    """

    def __init__(self, folder: Path, origin: dict[str, Any], overwrite: bool = False) -> None:
        self.folder = folder
        self.predictions = PredictionFolder(folder, origin, "label maps")
        self.num_written = 0
        if not overwrite and any(folder.glob("*.nii*")):
            self.predictions.check_origin()

    def on_predict_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """State the origin; the data have been checked by now.

        Raises:
            ValueError: if label maps of another origin would remain.
        """
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        files = list(label_maps(self.folder, datamodule))
        self.predictions.check_replaces(files)  # in every process: the others would wait for the first one in vain
        if trainer.is_global_zero:
            self.predictions.begin(files)
        trainer.strategy.barrier()  # no process writes before those of another origin are gone

    def on_predict_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, *rest: Any) -> None:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        for index, label in zip(batch["index"].tolist(), outputs, strict=True):
            datamodule.save_prediction(index, label, self.folder)
            name = datamodule.case_name("predict", index)
            assert is_written(self.folder, name), f"a resumed prediction looks for {name}{SUFFIXES[0]}"
            self.num_written += 1


def label_maps(folder: Path, datamodule: Any) -> Iterator[Path]:
    """Yield the files in which the label map of a case to be predicted may be."""
    cases = datamodule.predict_dataloader().dataset
    for index in cases.indices if isinstance(cases, Subset) else range(len(cases)):  # see `only_missing`
        yield from places(folder, datamodule.case_name("predict", index))


def places(folder: Path, case: str) -> list[Path]:
    """Return the files of which one has the label map of a case."""
    return [folder / f"{case}{suffix}" for suffix in SUFFIXES]


def is_written(folder: Path, case: str) -> bool:
    """Whether the folder has the label map of a case."""
    return any(path.is_file() for path in places(folder, case))


def only_missing(loader: DataLoader, case_name: Callable[[str, int], str], folder: Path) -> DataLoader:
    """Return the loader, whose item i is case i, without the cases whose label maps are in the folder."""
    cases: Any = loader.dataset
    missing = [index for index in range(len(cases)) if not is_written(folder, case_name("predict", index))]
    return DataLoader(
        Subset(cases, missing),
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        prefetch_factor=loader.prefetch_factor,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
    )
