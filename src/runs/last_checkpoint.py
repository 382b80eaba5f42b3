"""The checkpoint from which a run resumes, however it was interrupted."""

import math
import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from src.runs.early_rows import log_row_of_epoch, log_row_of_step
from src.runs.finite import check_finite
from src.runs.folder import RunFolder


def between_updates(trainer: Trainer, batch_idx: int) -> bool:
    """Whether no accumulated gradients wait for an update after this batch; a checkpoint does not contain them."""
    return trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def _validation_follows(trainer: Trainer, batch_idx: int) -> bool:
    """Whether this step's checkpoint has to wait for a validation, which the last step of an ended training has too.

    A run that is resumed from there takes no further step, and would never do that validation.
    """
    if trainer.should_stop:
        return True
    counted = trainer.fit_loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx
    return trainer.is_last_batch or (counted + 1) % (trainer.val_check_batch or math.inf) == 0


class LastCheckpoint(Checkpoint):
    """Writes ``checkpoints/last.ckpt`` at the end of every epoch, and within long epochs at an interval.

    A process killed at any moment loses only what it did afterwards. (Lightning's ModelCheckpoint also writes after
    the last batch of an epoch, and resumes from there without that epoch's validation.)

    The rows of the step or epoch are logged first, so that none is missing if the process is killed in between.

    Args:
        run_dir: the run folder.
        every_n_minutes: interval within an epoch in minutes; None for no such interval.
        every_n_steps: interval within an epoch in optimizer steps; None for no such interval.

    Raises:
        ValueError: if an interval is not positive.
    """

    def __init__(self, run_dir: str, every_n_minutes: float | None = None, every_n_steps: int | None = None) -> None:
        for name, value in {"every_n_minutes": every_n_minutes, "every_n_steps": every_n_steps}.items():
            if value is not None and value <= 0:
                raise ValueError(f"expected a positive callbacks.last.{name} or null, got {value}")
        self.path = RunFolder(run_dir).checkpoint()
        self.every_n_minutes = every_n_minutes
        self.every_n_steps = every_n_steps
        self._written = time.monotonic()
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._written = time.monotonic()
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write if it is due and no validation comes first."""
        is_consistent = between_updates(trainer, batch_idx) and not _validation_follows(trainer, batch_idx)
        if is_consistent and self._is_due(trainer):
            log_row_of_step(trainer)
            self._write(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write; the validation of this epoch is over."""
        log_row_of_epoch(trainer)
        self._write(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Prevent that a checkpoint with NaN or infinity replaces a finite one, in this or another file.

        Raises:
            NonFiniteStateError: naming a tensor.
        """
        check_finite(checkpoint, pl_module, trainer.strategy.reduce_boolean_decision)

    def _is_due(self, trainer: Trainer) -> bool:
        if self.every_n_steps is not None and trainer.global_step - self._step >= self.every_n_steps:
            return True
        if self.every_n_minutes is None:
            return False
        # All processes write together, but their clocks differ.
        return trainer.strategy.broadcast(time.monotonic() - self._written >= 60 * self.every_n_minutes)

    def _write(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)  # the optimizer too
        self._written = time.monotonic()
        self._step = trainer.global_step
