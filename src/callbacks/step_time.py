"""The time of a training step."""

import statistics
import time
from typing import Any

import pytorch_lightning as pl
import torch

from src.utils.reduced import log_reduced


class StepTime(pl.Callback):
    """Logs the median time of the training steps of an epoch (forward, backward, update) as ``time/step_s``.

    Loading the data does not count, and the warm-up of the first steps does not change the median.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._epoch_start = 0
        self._started = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": list(self._seconds), "epoch_start": self._epoch_start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seconds, self._epoch_start = list(state_dict["seconds"]), state_dict["epoch_start"]

    def summary(self, trainer: pl.Trainer) -> dict[str, Any]:
        """Return the median over all steps in seconds; None before the first step."""
        return {"step_time_s": statistics.median(self._seconds) if self._seconds else None}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_start = len(self._seconds)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        self._started = _now(pl_module.device)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        self._seconds.append(_now(pl_module.device) - self._started)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        steps = self._seconds[self._epoch_start :]
        if steps:
            log_reduced(pl_module, {"time/step_s": statistics.median(steps)}, "mean")


def _now(device: torch.device) -> float:
    # A GPU still works after the call has returned.
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
