"""The confusion matrix of a classifier as a picture."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from matplotlib.figure import Figure
from torch import Tensor

from src.callbacks.pictures.drawing import publish


class ConfusionMatrix(pl.Callback):
    """Draws the task's ``confusion`` after a test into ``<dirpath>/confusion.png``, and shows it in image loggers."""

    def __init__(self, dirpath: str) -> None:
        self.path = Path(dirpath) / "confusion.png"

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            names = getattr(trainer.datamodule, "class_names", None)  # type: ignore[attr-defined]
            publish(trainer, draw_confusion(pl_module.confusion, names), self.path, "confusion")


def draw_confusion(counts: Tensor, names: list[str] | None = None) -> Figure:
    """Draw counts (true class, predicted class), shaded by their fraction of the true class."""
    num_classes = len(counts)
    names = [str(name) for name in (names or range(num_classes))]
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    side = 1.5 + 0.4 * num_classes
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0.0, vmax=1.0)
    for row in range(num_classes):
        for column in range(num_classes):
            if count := int(counts[row, column]):
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=7)
    axes.set_xticks(range(num_classes), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(range(num_classes), names)
    axes.set(xlabel="predicted", ylabel="true")
    return figure
