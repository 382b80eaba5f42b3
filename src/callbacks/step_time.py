"""How long a training step takes."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytorch_lightning as pl
import torch

from src.utils.reduced import log_reduced


class StepTime(pl.Callback):
    """Times each training step (forward, backward, update), without loading the data.

    Logs the median of an epoch as ``time/step_s``. The median does not see the first steps' warm-up.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._epoch_start = 0
        self._started = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the times of all steps, and where the epoch began."""
        return {"seconds": list(self._seconds), "epoch_start": self._epoch_start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the times of the checkpoint."""
        self._seconds, self._epoch_start = list(state_dict["seconds"]), state_dict["epoch_start"]

    @property
    def median_s(self) -> float | None:
        """Median over all steps in seconds; None before the first step."""
        return statistics.median(self._seconds) if self._seconds else None

    def summary(self, trainer: pl.Trainer) -> dict[str, Any]:
        """Return the median over all steps."""
        return {"step_time_s": self.median_s}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the median of this epoch."""
        self._epoch_start = len(self._seconds)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock."""
        self._started = _now(pl_module.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock."""
        self._seconds.append(_now(pl_module.device) - self._started)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the median of the epoch."""
        steps = self._seconds[self._epoch_start :]
        if steps:
            log_reduced(pl_module, {"time/step_s": statistics.median(steps)}, "mean")


def _now(device: torch.device) -> float:
    # A GPU works on after the call returns.
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
