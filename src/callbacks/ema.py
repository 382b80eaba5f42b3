"""An exponential moving average of the weights."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.trainer.states import TrainerFn


class EMA(EMAWeightAveraging):
    """Averages the weights, ``w̄ ← d w̄ + (1 − d) w`` after each step; validation, test and checkpoints use the average.

    This is Lightning's callback with two changes. First, Lightning loads the weights in training for a test, and so
    would test what was not validated. Here "state_dict" of a checkpoint is the average in a test, and the weights in
    training are loaded by resumed runs only. Second, Lightning exchanges the two for a validation, and a run that is
    interrupted there would save the one as the other.

    Args:
        decay: d.
        update_every_n_steps: steps between two updates.
        update_starting_at_step: the first step that is averaged. Before, the average is the initial weights.

    Raises:
        ValueError: unless 0 <= decay < 1 and update_every_n_steps is positive.
    """

    def __init__(
        self, decay: float = 0.999, update_every_n_steps: int = 1, update_starting_at_step: int | None = None
    ) -> None:
        if not 0 <= decay < 1 or update_every_n_steps < 1:
            raise ValueError(
                "expected an EMA decay from 0 to below 1 and a positive update_every_n_steps, got "
                f"{decay} and {update_every_n_steps}"
            )
        super().__init__(
            decay=decay, update_every_n_steps=update_every_n_steps, update_starting_at_step=update_starting_at_step
        )
        self._exchanged = False

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._exchanged = True

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self._exchanged = False

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save average and weights under their own names, also in the middle of a validation."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._exchanged:
            weights, average = checkpoint["state_dict"], checkpoint["current_model_state"]
            checkpoint.update(state_dict=average, current_model_state=weights)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Load average and weights to continue training; a test has the average already."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
