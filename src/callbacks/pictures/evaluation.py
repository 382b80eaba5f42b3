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
from src.callbacks.weight_average import validated_weights
from src.runs.folder import picture_name
from src.utils.sharding import whole_parameters


class EvaluationPictures(pl.Callback):
    """Collects the first samples of an evaluation and publishes the figures that a subclass draws of them.

    Files are ``val-<name>-epoch-<epoch>.png``, ``test-<name>.png`` and ``predict-<name>.png``. In a distributed run the
    first process draws, and has its own share of the first samples.

    Args:
        dirpath: folder of the pictures.
        count: number of samples, from index 0 of each set.
        every_n_epochs: of each so many epochs, the first validation is drawn, and in any case the last one of a
            training.

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
        # Samples, epoch and step of the latest validation, if it was not its turn.
        self._passed_over: tuple[dict[int, Any], int, int] | None = None

    def kept(self, name: str, sample: dict[str, Tensor]) -> Any:
        """Return what `figures` needs of a sample: entries of batch and outputs without batch axis; here its image.

        It must not hold the batch: samples of a validation are kept until the next one.
        """
        return sample["image"].detach().clone()

    def figures(self, trainer: pl.Trainer, task: Any, samples: Mapping[int, Any]) -> dict[str, Figure]:
        """Return the figures by name; ``samples`` is what `kept` returned, by index in ascending order."""
        raise NotImplementedError

    def _shows(self, trainer: pl.Trainer, stage: str) -> bool:
        return stage in self.stages and not (stage == "val" and trainer.sanity_checking)

    def _is_in_turn(self, trainer: pl.Trainer) -> bool:
        """Whether a validation is the first one in its ``every_n_epochs`` epochs, or the last one of the training."""
        assert trainer.max_epochs is not None
        epoch, interval = trainer.current_epoch, trainer.check_val_every_n_epoch or 1
        is_first = epoch // self.every_n_epochs != (epoch - interval) // self.every_n_epochs
        return is_first or -1 < trainer.max_epochs <= epoch + interval

    def _keep(self, stage: str, trainer: pl.Trainer, task: Any, outputs: Any, batch: Any, *unused: Any) -> None:
        if not (trainer.is_global_zero and self._shows(trainer, stage)):
            return
        shown = {**batch, "prediction": outputs} if stage == "predict" else outputs
        name_of = getattr(trainer.datamodule, "case_name", None)  # type: ignore[attr-defined]
        for position, index in enumerate(shown["index"].tolist()):
            if index < self.count:
                name = name_of(stage, index) if name_of else str(index)
                self._kept[index] = self.kept(name, {key: value[position] for key, value in shown.items()})

    def _end(self, stage: str, trainer: pl.Trainer, task: Any) -> None:
        if not self._shows(trainer, stage):
            return
        samples, self._kept, self._passed_over = dict(sorted(self._kept.items())), {}, None
        if stage != "val":
            self._draw(stage, None, trainer, task, samples)
        elif self._is_in_turn(trainer):
            self._draw(stage, trainer.current_epoch, trainer, task, samples)
        else:
            self._passed_over = samples, trainer.current_epoch, trainer.global_step

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw the last validation of a training that ends earlier than planned, unless more steps followed it."""
        if self._passed_over is not None:
            samples, epoch, step = self._passed_over
            if step == trainer.global_step:
                # An average of the weights takes their place at the end of the training, after these pictures.
                with validated_weights(trainer, pl_module):
                    self._draw("val", epoch, trainer, pl_module, samples)

    @torch.no_grad()
    def _draw(self, stage: str, epoch: int | None, trainer: pl.Trainer, task: Any, samples: Mapping[int, Any]) -> None:
        with whole_parameters(trainer):
            figures = self.figures(trainer, task, samples) if trainer.is_global_zero else {}
        for name, figure in figures.items():
            full = f"{stage}-{name}"
            publish(trainer, figure, self.dirpath / picture_name(full, epoch), f"images/{full}")

    on_validation_batch_end: Any = partialmethod(_keep, "val")
    on_test_batch_end: Any = partialmethod(_keep, "test")
    on_predict_batch_end: Any = partialmethod(_keep, "predict")
    on_validation_epoch_end: Any = partialmethod(_end, "val")
    on_test_epoch_end: Any = partialmethod(_end, "test")
    on_predict_epoch_end: Any = partialmethod(_end, "predict")
