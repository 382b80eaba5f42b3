"""The time of a training step."""

import statistics
import time
from collections import deque
from typing import Any

import pytorch_lightning as pl
import torch

from src.runs.last_checkpoint import between_updates
from src.runs.of_training import OfTraining
from src.utils.reduced import log_reduced


class StepTime(OfTraining):
    """Logs the median time of the training steps of an epoch (forward, backward, update) as ``time/step_s``.

    A step ends with an update: under ``trainer.accumulate_grad_batches`` it has several batches. Loading the data does
    not count, and the warm-up of the first steps does not change the median. On a GPU, the time is that between two
    events on its stream, which are read later: nothing waits for them. A run that is resumed on the other kind of
    device counts from there.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._device: str | None = None
        self._batches: list[tuple[Any, Any]] = []  # start and end of those since the last update
        self._running: deque[list[tuple[Any, Any]]] = deque()  # batches of steps whose seconds are not known yet
        self._epoch_start = 0
        self._start: Any = None

    def state_dict(self) -> dict[str, Any]:
        self._read_all()
        return {"seconds": list(self._seconds), "epoch_start": self._epoch_start, "device": self._device}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seconds, self._epoch_start = list(state_dict["seconds"]), state_dict["epoch_start"]
        self._device = state_dict.get("device")

    def summary(self, trainer: pl.Trainer) -> dict[str, Any]:
        """Return the median over all steps in seconds; None before the first step."""
        self._read_all()
        return {"step_time_s": statistics.median(self._seconds) if self._seconds else None}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the times of an earlier training on the other kind of device."""
        if self._device not in (None, pl_module.device.type):
            self._seconds, self._epoch_start = [], 0
        self._device = pl_module.device.type

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._read_all()
        self._epoch_start = len(self._seconds)
        self._batches = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        self._start = _now(pl_module.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batches.append((self._start, _now(pl_module.device)))
        if between_updates(trainer, batch_idx):
            self._running.append(self._batches)
            self._batches = []
        while self._running and _is_over(self._running[0][-1][1]):
            self._seconds.append(_seconds(self._running.popleft()))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._read_all()
        steps = self._seconds[self._epoch_start :]
        if steps:
            log_reduced(pl_module, {"time/step_s": statistics.median(steps)}, "mean")

    def _read_all(self) -> None:
        self._seconds += map(_seconds, self._running)
        self._running.clear()


def _now(device: torch.device) -> Any:
    """The present time: of the CPU in seconds, or an event that a GPU records when it gets there."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _is_over(moment: Any) -> bool:
    return isinstance(moment, float) or moment.query()


def _seconds(step: list[tuple[Any, Any]]) -> float:
    return sum(_between(start, end) for start, end in step)


def _between(start: Any, end: Any) -> float:
    if isinstance(start, float):
        return end - start
    end.synchronize()
    return start.elapsed_time(end) / 1e3
