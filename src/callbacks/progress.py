"""Progress for a person at a terminal, and for the one who reads the log afterwards."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar


def progress_bar() -> ProgressBar:
    """Return rich's bar on a terminal, else plain lines."""
    return RichProgressBar(leave=True) if sys.stdout.isatty() else LineProgress()


class LineProgress(ProgressBar):
    """Prints a line after each epoch, and within long epochs every ``interval_s`` seconds.

    A bar that redraws itself floods a log file; no progress at all makes a slow run look like a dead one.
    """

    def __init__(self, interval_s: float = 30.0) -> None:
        super().__init__()
        self.interval_s = interval_s
        self._enabled = True
        self._started = self._printed = time.monotonic()
        self._first_step = 0

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

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print now and then."""
        if time.monotonic() - self._printed >= self.interval_s:
            self._print(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch's numbers."""
        self._print(trainer, pl_module)

    def _print(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._printed = time.monotonic()
        if not self._enabled:
            return
        total = trainer.estimated_stepping_batches
        metrics = {k: v for k, v in self.get_metrics(trainer, pl_module).items() if k != "v_num"}
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
