"""Progress for a person at a terminal, and for the reader of a log."""

import math
import sys
import time
from functools import partialmethod
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar

from src.callbacks.time_budget import TimeBudget

STAGES = {"val": "validation", "test": "test", "predict": "prediction"}


def progress_bar() -> ProgressBar:
    """Return rich's bar on a terminal, else plain lines."""
    return RichProgress(leave=True) if sys.stdout.isatty() else LineProgress()


class RichProgress(RichProgressBar):
    """Lightning's bar; every process reads the numbers of an epoch, not only the one that shows them.

    Lightning reduces a metric that was logged with ``sync_dist=True`` over the processes when it is first read. A
    process that reads it alone would wait for the others for ever.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.get_metrics(trainer, pl_module)
        super().on_train_epoch_end(trainer, pl_module)


class LineProgress(ProgressBar):
    """Prints a line after each epoch, and every ``interval_s`` seconds within long epochs, tests and predictions.

    A bar that redraws itself would flood a log file. Without any output, a slow run would look like a dead one.
    """

    def __init__(self, interval_s: float = 30.0) -> None:
        super().__init__()
        self.interval_s = interval_s
        self._enabled = True
        self._started = self._printed = self._evaluation_started = time.monotonic()
        self._first_step = 0
        self._total: float = 0

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:  # Lightning calls it in all processes but the first
        self._enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = self._printed = time.monotonic()
        self._first_step = trainer.global_step
        self._total = trainer.estimated_stepping_batches

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        if time.monotonic() - self._printed >= self.interval_s:
            self.on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the numbers of the epoch so far."""
        self._printed = time.monotonic()
        # In every process, see `RichProgress`.
        metrics = {k: v for k, v in self.get_metrics(trainer, pl_module).items() if k != "v_num"}
        if not self._enabled:
            return
        numbers = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in metrics.items()]
        step = trainer.global_step
        done, left = step - self._first_step, self._total - step
        if done > 0 and math.isfinite(left):
            callbacks = trainer.callbacks  # type: ignore[attr-defined]
            budgets = (callback.left_s() for callback in callbacks if isinstance(callback, TimeBudget))
            left_s = min([_left_s(self._started, done, left), *budgets])
            numbers.append(f"{left_s / 60:.1f} min left")
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        print(epoch, f"step {step}/{self._total:.0f}", *numbers, sep="  ", flush=True)

    def _start_evaluation(self, *unused: Any) -> None:
        self._evaluation_started = time.monotonic()

    def _evaluated(
        self, stage: str, trainer: pl.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int, loader: int = 0
    ) -> None:
        silent = not self._enabled or (stage == "val" and trainer.sanity_checking)
        if silent or time.monotonic() - self._printed < self.interval_s:
            return
        self._printed = time.monotonic()
        done, total = batch_idx + 1, getattr(trainer, f"num_{stage}_batches")[loader]
        left_s = _left_s(self._evaluation_started, done, total - done)
        print(f"{STAGES[stage]} {done}/{total:.0f}  {left_s / 60:.1f} min left", flush=True)

    on_validation_start: Any = _start_evaluation
    on_test_start: Any = _start_evaluation
    on_predict_start: Any = _start_evaluation
    on_validation_batch_end: Any = partialmethod(_evaluated, "val")
    on_test_batch_end: Any = partialmethod(_evaluated, "test")
    on_predict_batch_end: Any = partialmethod(_evaluated, "predict")


def _left_s(started: float, done: float, left: float) -> float:
    return (time.monotonic() - started) / done * left
