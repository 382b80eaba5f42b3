"""The latest value of every metric, across the processes of a run."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

KEY = "metrics"


class LatestMetrics(pl.Callback):
    """Keeps the latest value of every metric in the checkpoint.

    Lightning begins with none: a run that goes on to its test alone would know nothing of its training.
    """

    def __init__(self) -> None:
        self._earlier: dict[str, float] = {}

    def values(self, trainer: pl.Trainer) -> dict[str, float]:
        """Return the metrics by name, those of the processes that this one goes on from included."""
        return {**self._earlier, **{name: float(value) for name, value in trainer.callback_metrics.items()}}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add ``checkpoint["metrics"]``."""
        checkpoint[KEY] = self.values(trainer)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Begin with those of the checkpoint that training goes on from; a test loads one too."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._earlier = checkpoint.get(KEY, {})
