"""The curves of a run as one picture, whichever loggers it has."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from matplotlib.figure import Figure
from pytorch_lightning.trainer.states import TrainerFn

from src.callbacks.pictures.drawing import save_figure
from src.runs.folder import RunFolder
from src.runs.history import STATE_KEY, History, curves_state, read_curves_state

# Of a run's time, spent on drawing before the end: epochs may be shorter than a picture takes.
_SHARE = 0.01


class Curves(pl.Callback):
    """Keeps the named metrics over the steps, in the checkpoint too, and draws them into ``curves.png``.

    It draws at the end of an epoch, unless the last time is so recent that this would cost more than a hundredth of the
    run, and at the end of training or when that is cut off. Metrics of a training step (``train/...``) are averaged
    over the epoch.

    Args:
        dirpath: folder of the picture.
        panels: title of each panel and the metrics that it shows. A panel named "loss" has a logarithmic axis.
    """

    def __init__(self, dirpath: str, panels: Mapping[str, Sequence[str]]) -> None:
        self.path = RunFolder(dirpath).curves
        self.panels = {title: list(names) for title, names in panels.items()}
        self.history: History = {}
        self._running: dict[str, list[float]] = {}
        self._next_time = 0.0

    @property
    def state_key(self) -> str:
        """Under which the checkpoint has the history."""
        return STATE_KEY

    def state_dict(self) -> dict[str, Any]:
        """Return the history, and what the epoch has brought so far."""
        return curves_state(self.history, self._running)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the history of the checkpoint."""
        self.history, self._running = read_curves_state(state_dict)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Collect the metrics of a training step."""
        for name in self._names():
            if name.startswith("train/") and name in trainer.callback_metrics:
                self._running.setdefault(name, []).append(float(trainer.callback_metrics[name]))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a point to each curve; Lightning writes this epoch's checkpoints afterwards."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        for name, values in self._running.items():
            self._append(name, trainer.global_step, sum(values) / len(values))
        self._running.clear()
        for name in self._names():
            if name.startswith("val/") and name in trainer.callback_metrics:
                self._append(name, trainer.global_step, float(trainer.callback_metrics[name]))
        if time.monotonic() >= self._next_time:
            self._draw(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the whole history."""
        self._draw(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Draw what there is of it."""
        self._draw(trainer)

    def _draw(self, trainer: pl.Trainer) -> None:
        if not (trainer.is_global_zero and self.history):
            return
        start = time.monotonic()
        save_figure(draw_curves(self.history, self.panels), self.path)
        stop = time.monotonic()
        self._next_time = stop + (stop - start) / _SHARE

    def _names(self) -> list[str]:
        return [name for names in self.panels.values() for name in names]

    def _append(self, name: str, step: int, value: float) -> None:
        self.history.setdefault(name, []).append((step, value))


def draw_curves(history: History, panels: Mapping[str, Sequence[str]]) -> Figure:
    """Draw one panel beside the other, each with its metrics over the steps."""
    figure = Figure(figsize=(5 * len(panels), 3.5), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name in names:
            if history.get(name):
                axes.plot(*zip(*history[name], strict=True), marker=".", label=name)
        axes.set(xlabel="step", title=title, yscale="log" if title == "loss" else "linear")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return figure
