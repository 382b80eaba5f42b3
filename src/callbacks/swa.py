"""The mean of the weights of the last epochs."""

import math
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch.optim.swa_utils import get_swa_avg_fn

from src.callbacks.weight_average import ValidatedAverage


class SWA(ValidatedAverage):
    """Averages the weights at the ends of the last epochs, ``w̄ = Σ_k w_k / n`` (Izmailov et al., 2018).

    From the first averaged epoch on, validation, test and checkpoints use the average.

    Args:
        start_fraction: the fraction of the training's epochs after which averaging starts, in [0, 1); the last one is
            averaged in any case. ``trainer.max_epochs`` and ``trainer.max_steps`` count, not what ends it earlier.

    Raises:
        ValueError: if it is out of its range.
    """

    def __init__(self, start_fraction: float = 0.75) -> None:
        if not 0 <= start_fraction < 1:
            raise ValueError(f"expected callbacks.swa.start_fraction in [0, 1), got {start_fraction}")
        super().__init__(get_swa_avg_fn())
        self.start_fraction = start_fraction
        self._is_due = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the length of the training is known.

        Raises:
            ValueError: if it is not.
        """
        if stage == "fit" and (trainer.max_epochs or -1) < 0:
            raise ValueError(f"expected trainer.max_epochs to be set for callbacks.swa, got {trainer.max_epochs}")
        super().setup(trainer, pl_module, stage)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether the last step of an epoch to be averaged is over; the validation comes after it."""
        return step_idx is not None and self._is_due

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the average of a training that is prolonged: it is of epochs that are no longer the last ones."""
        super().on_train_start(trainer, pl_module)
        if self._has_begun and trainer.current_epoch < self._start(trainer):
            assert self._average_model is not None
            self._average_model.n_averaged.zero_()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after the last step of an epoch."""
        ends = trainer.is_last_batch or trainer.global_step == trainer.max_steps
        self._is_due = ends and trainer.current_epoch >= self._start(trainer)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average as the weights, or warn that there is none."""
        if not self._has_begun:
            rank_zero_warn(
                f"callbacks.swa averaged nothing: the training ended with epoch {trainer.current_epoch}, and "
                f"averaging begins with epoch {self._start(trainer) + 1}; the weights of the last step are stored. "
                "A smaller callbacks.swa.start_fraction or trainer.max_epochs begins earlier."
            )
        super().on_train_end(trainer, pl_module)

    def _start(self, trainer: Trainer) -> int:
        """Return the first epoch to be averaged, at the latest the last one of the training's planned length."""
        assert trainer.max_epochs is not None
        epochs = float(trainer.max_epochs)
        if trainer.max_steps > 0 and math.isfinite(trainer.num_training_batches):
            steps_per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
            epochs = min(epochs, trainer.max_steps / steps_per_epoch)
        return math.ceil(min(self.start_fraction * epochs, epochs - 1))
