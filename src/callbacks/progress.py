"""Progress for a person at a terminal, and for the one who reads the log afterwards."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar


def progress_bar() -> ProgressBar:
    """Return rich's bar on a terminal, else plain lines."""
    return RichProgress(leave=True) if sys.stdout.isatty() else LineProgress()


class RichProgress(RichProgressBar):
    """Lightning's, with the numbers of an epoch read in every process.

    Lightning reduces a metric that was logged with ``sync_dist=True`` over the processes when it is first read, and a
    process that reads alone waits for the others for ever.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the epoch's numbers."""
        self.get_metrics(trainer, pl_module)
        super().on_train_epoch_end(trainer, pl_module)


class LineProgress(ProgressBar):
    """Prints a line after each epoch, and within long epochs, tests and predictions every ``interval_s`` seconds.

    A bar that redraws itself floods a log file; no progress at all makes a slow run look like a dead one.
    """

    def __init__(self, interval_s: float = 30.0) -> None:
        super().__init__()
        self.interval_s = interval_s
        self._enabled = True
        self._started = self._printed = self._evaluation_started = time.monotonic()
        self._first_step = 0
        self._total: float = 0

    def enable(self) -> None:
        """Print, on the first process."""
        self._enabled = True

    def disable(self) -> None:
        """Stay silent, on the others."""
        self._enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock that the remaining time is told by."""
        self._started = self._printed = time.monotonic()
        self._first_step = trainer.global_step
        self._total = trainer.estimated_stepping_batches

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print now and then."""
        if time.monotonic() - self._printed >= self.interval_s:
            self._print(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch's numbers."""
        self._print(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of an evaluation."""
        self._evaluation_started = time.monotonic()

    # A test and a prediction start as a validation does.
    on_test_start = on_predict_start = on_validation_start

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Print now and then."""
        if not trainer.sanity_checking:
            self._print_batch("validation", batch_idx + 1, trainer.num_val_batches[dataloader_idx])

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Print now and then."""
        self._print_batch("test", batch_idx + 1, trainer.num_test_batches[dataloader_idx])

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Print now and then."""
        self._print_batch("prediction", batch_idx + 1, trainer.num_predict_batches[dataloader_idx])

    def _print_batch(self, stage: str, done: int, total: float) -> None:
        now = time.monotonic()
        if not self._enabled or now - self._printed < self.interval_s:
            return
        self._printed = now
        left = (now - self._evaluation_started) / done * (total - done)
        print(f"{stage} {done}/{total:.0f}  {left / 60:.1f} min left", flush=True)

    def _print(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._printed = time.monotonic()
        # In every process, as `RichProgress` says.
        metrics = {k: v for k, v in self.get_metrics(trainer, pl_module).items() if k != "v_num"}
        if not self._enabled:
            return
        total = self._total
        numbers = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in metrics.items())
        print(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  step {trainer.global_step}/{total:.0f}  {numbers}"
            f"  {self._remaining(trainer.global_step, total)}",
            flush=True,
        )

    def _remaining(self, step: int, total: float) -> str:
        done = step - self._first_step
        if done == 0 or total == float("inf"):
            return ""
        seconds = (time.monotonic() - self._started) / done * (total - step)
        return f"{seconds / 60:.1f} min left"
