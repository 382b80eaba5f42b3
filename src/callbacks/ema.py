"""An exponential moving average of the weights."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.trainer.states import TrainerFn


class EMA(EMAWeightAveraging):
    """Averages the weights, ``w̄ ← d w̄ + (1 − d) w`` after each step; validation, test and checkpoints use the average.

    This is Lightning's callback with two changes. First, Lightning would test the weights in training, which were not
    validated. Here a test loads "state_dict" of the checkpoint, the average; only resumed runs load the weights in
    training. Second, Lightning exchanges the two for a validation, and would save a run that is interrupted there with
    one in place of the other.

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
                f"expected decay in [0, 1) and a positive update_every_n_steps, got {decay} and {update_every_n_steps}"
            )
        super().__init__(
            decay=decay, update_every_n_steps=update_every_n_steps, update_starting_at_step=update_starting_at_step
        )
        self._exchanged = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._exchanged = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self._exchanged = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save average and weights under their own names, also in the middle of a validation."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._exchanged:
            weights, average = checkpoint["state_dict"], checkpoint["current_model_state"]
            checkpoint.update(state_dict=average, current_model_state=weights)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load average and weights to continue training; a test has the average already."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
