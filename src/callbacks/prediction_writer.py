"""Predicted label maps as files, one per case."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Subset

from src.utils.files import write_text
from src.utils.reading import read_json

SUFFIXES = (".nii.gz", ".nii")


class PredictionWriter(pl.Callback):
    """Has the datamodule write each predicted label map as ``<folder>/<case>.nii.gz``.

    Label maps of two networks must not be mixed unseen, so ``predictions.json`` beside them says where they come from.

    Args:
        folder: of the files.
        origin: what all label maps in the folder have in common, such as the checkpoint; values that JSON keeps.
        overwrite: whether label maps that are there already may be replaced.

    Attributes:
        num_written: how many this process wrote.

    Raises:
        ValueError: if the folder has label maps of another origin and they may not be replaced.
    """

    def __init__(self, folder: Path, origin: dict[str, Any], overwrite: bool = False) -> None:
        self.folder = folder
        self.origin = origin
        self.note = folder / "predictions.json"
        self.num_written = 0
        if not overwrite and any(folder.glob("*.nii*")):
            self._check_origin()

    def on_predict_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Note the origin: the data are good by now."""
        if trainer.is_global_zero:
            write_text(self.note, json.dumps(self.origin, indent=2) + "\n")

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Write the batch's cases."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        for index, label in zip(batch["index"].tolist(), outputs, strict=True):
            datamodule.save_prediction(index, label, self.folder)
            name = datamodule.case_name("predict", index)
            assert is_written(self.folder, name), f"a prediction that goes on looks for {name}{SUFFIXES[0]}"
            self.num_written += 1

    def _check_origin(self) -> None:
        found = read_json(self.note, "where label maps come from") if self.note.is_file() else {}
        different = [f"{key} {found.get(key)!r}" for key, value in self.origin.items() if found.get(key) != value]
        if different:
            raise ValueError(
                f"expected output={self.folder} to be empty or to have label maps with "
                f"{', '.join(f'{key} {value!r}' for key, value in self.origin.items())}, got some with "
                f"{', '.join(different)}; overwrite=true replaces them"
            )


def is_written(folder: Path, case: str) -> bool:
    """Whether the folder has the label map of a case."""
    return any((folder / f"{case}{suffix}").is_file() for suffix in SUFFIXES)


def only_missing(loader: DataLoader, case_name: Callable[[str, int], str], folder: Path) -> DataLoader:
    """Return the loader without the cases whose label maps the folder has; they are not even read.

    Args:
        loader: item i of its data set is case i.
        case_name: the datamodule's.
        folder: of the label maps.
    """
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
