"""Time over size, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from matplotlib.figure import Figure

from src.callbacks.pictures.base import publish
from src.tasks.runtime import OPERATIONS


class RuntimePicture(pl.Callback):
    """Draws the times of a `ConvolutionRuntime` over channels and over image size into ``runtime.png``.

    Args:
        dirpath: folder of the picture.
    """

    def __init__(self, dirpath: str) -> None:
        self.path = Path(dirpath) / "runtime.png"

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw."""
        if trainer.is_global_zero:
            publish(trainer, draw_runtimes(pl_module.test_table), self.path, "runtime")


def draw_runtimes(table: list[dict[str, float]]) -> Figure:
    """Draw two panels, both axes logarithmic: one for each quantity that the table varies."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, varied, fixed in zip(figure.subplots(1, 2), ("channels", "size"), ("size", "channels"), strict=True):
        values = [row[fixed] for row in table]
        common = max(set(values), key=values.count)
        rows = sorted({row[varied]: row for row in table if row[fixed] == common}.items())
        for name in OPERATIONS:
            axes.plot([value for value, _ in rows], [row[name] for _, row in rows], marker="o", label=name)
        axes.set(xscale="log", yscale="log", xlabel=varied, ylabel="ms", title=f"{fixed} = {common:.0f}")
        axes.set_xticks([value for value, _ in rows], [f"{value:.0f}" for value, _ in rows])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
