"""Pictures of the first samples of a validation, a test or a prediction."""

from collections.abc import Mapping
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from src.callbacks.pictures.drawing import publish
from src.runs.folder import picture_name


class EvaluationPictures(pl.Callback):
    """Collects the first samples of an evaluation and publishes the figures that a subclass draws of them.

    Files are ``val-<name>-epoch-<epoch>.png``, ``test-<name>.png`` and ``predict-<name>.png``. In a distributed run the
    first process draws, and has its own share of the first samples.

    Args:
        dirpath: folder of the pictures.
        count: number of samples, from index 0 of each set.
        every_n_epochs: interval of the validations that are drawn; that of the last epoch always is.

    Raises:
        ValueError: if a number is not positive.
    """

    stages: tuple[str, ...] = ("val", "test")

    def __init__(self, dirpath: str, count: int, every_n_epochs: int = 1) -> None:
        if count < 1 or every_n_epochs < 1:
            raise ValueError(f"expected a positive number of samples and every_n_epochs, got {count}, {every_n_epochs}")
        self.dirpath = Path(dirpath)
        self.count = count
        self.every_n_epochs = every_n_epochs
        self._kept: dict[int, Any] = {}

    def kept(self, name: str, sample: dict[str, Tensor]) -> Any:
        """Return what `figures` needs of a sample: entries of batch and outputs without batch axis; here its image."""
        return sample["image"].detach()

    def figures(self, trainer: pl.Trainer, task: Any, samples: Mapping[int, Any]) -> dict[str, Figure]:
        """Return the figures by name; ``samples`` is what `kept` returned, by index in ascending order."""
        raise NotImplementedError

    def _draws(self, trainer: pl.Trainer, stage: str) -> bool:
        if not trainer.is_global_zero or stage not in self.stages:
            return False
        epoch = trainer.current_epoch
        in_turn = epoch % self.every_n_epochs == 0 or epoch + 1 == trainer.max_epochs
        return stage != "val" or (in_turn and not trainer.sanity_checking)

    def _keep(self, stage: str, trainer: pl.Trainer, task: Any, outputs: Any, batch: Any, *unused: Any) -> None:
        if not self._draws(trainer, stage):
            return
        shown = {**batch, "prediction": outputs} if stage == "predict" else outputs
        name_of = getattr(trainer.datamodule, "case_name", None)  # type: ignore[attr-defined]
        for position, index in enumerate(shown["index"].tolist()):
            if index < self.count:
                name = name_of(stage, index) if name_of else str(index)
                self._kept[index] = self.kept(name, {key: value[position] for key, value in shown.items()})

    @torch.no_grad()
    def _draw(self, stage: str, trainer: pl.Trainer, task: Any) -> None:
        samples, self._kept = dict(sorted(self._kept.items())), {}
        if self._draws(trainer, stage):
            epoch = trainer.current_epoch if stage == "val" else None
            for name, figure in self.figures(trainer, task, samples).items():
                full = f"{stage}-{name}"
                publish(trainer, figure, self.dirpath / picture_name(full, epoch), f"images/{full}")

    on_validation_batch_end: Any = partialmethod(_keep, "val")
    on_test_batch_end: Any = partialmethod(_keep, "test")
    on_predict_batch_end: Any = partialmethod(_keep, "predict")
    on_validation_epoch_end: Any = partialmethod(_draw, "val")
    on_test_epoch_end: Any = partialmethod(_draw, "test")
    on_predict_epoch_end: Any = partialmethod(_draw, "predict")
