"""The curves of a run as one picture, independent of its loggers."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from matplotlib.figure import Figure
from pytorch_lightning.trainer.states import TrainerFn

from src.callbacks.pictures.drawing import save_figure
from src.runs.folder import RunFolder
from src.runs.history import STATE_KEY, History, curves_state, read_curves_state
from src.runs.of_training import OfTraining

# The fraction of a run's time that drawing may take before its end: epochs may be shorter than a picture takes.
_SHARE = 0.01


class Curves(OfTraining):
    """Keeps the named metrics over the steps, in the checkpoint too, and draws them into ``curves.png``.

    It draws after an epoch, unless that would cost more than a hundredth of the run's time, and when training ends or
    is interrupted. Metrics of a training step (``train/...``) are averaged over the epoch.

    Args:
        dirpath: folder of the picture.
        panels: title and metrics of each panel. A panel named "loss" has a logarithmic axis.
    """

    def __init__(self, dirpath: str, panels: Mapping[str, Sequence[str]]) -> None:
        self.path = RunFolder(dirpath).curves
        self.panels = {title: list(names) for title, names in panels.items()}
        self.history: History = {}
        self._running: dict[str, list[float]] = {}
        self._next_time = 0.0

    @property
    def state_key(self) -> str:
        """The key of the history in a checkpoint."""
        return STATE_KEY

    def state_dict(self) -> dict[str, Any]:
        return curves_state(self.history, self._running)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self._running = read_curves_state(state_dict)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        for name, value in self._latest(trainer, "train/"):
            self._running.setdefault(name, []).append(value)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a point to each curve; Lightning writes this epoch's checkpoints afterwards."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        means = [(name, sum(values) / len(values)) for name, values in self._running.items()]
        for name, value in [*means, *self._latest(trainer, "val/")]:
            self.history.setdefault(name, []).append((trainer.global_step, value))
        self._running.clear()
        if time.monotonic() >= self._next_time:
            self._draw(trainer)

    def _latest(self, trainer: pl.Trainer, prefix: str) -> list[tuple[str, float]]:
        names = [name for names in self.panels.values() for name in names if name.startswith(prefix)]
        return [(name, float(trainer.callback_metrics[name])) for name in names if name in trainer.callback_metrics]

    def _draw(self, trainer: pl.Trainer, *unused: Any) -> None:
        if trainer.is_global_zero and self.history:
            start = time.monotonic()
            save_figure(draw_curves(self.history, self.panels), self.path)
            stop = time.monotonic()
            self._next_time = stop + (stop - start) / _SHARE

    on_train_end: Any = _draw
    on_exception: Any = _draw


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
