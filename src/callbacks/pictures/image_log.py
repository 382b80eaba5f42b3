"""Pictures of what the network does: input, output and truth side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from src.callbacks.pictures.base import publish, shows_epoch
from src.runs.folder import picture_name

AXES = "zyx"


def central_slices(volume: Tensor) -> list[NDArray[np.float32]]:
    """Return the central slice across each axis of a (D, H, W) volume, or the (H, W) image itself."""
    array = volume.detach().float().cpu().numpy()
    if array.ndim == 2:
        return [array]
    return [np.take(array, array.shape[axis] // 2, axis=axis) for axis in range(array.ndim)]


def triptych(volumes: dict[str, Tensor], data_range: float) -> Figure:
    """Draw one column per titled (D, H, W) volume and one row per central slice.

    All share the grey window [0, data_range]: equal greys are equal values, and what lies outside is black or white.
    """
    columns = {title: central_slices(volume) for title, volume in volumes.items()}
    num_rows = max(len(slices) for slices in columns.values())
    figure = Figure(figsize=(2.2 * len(columns), 2.2 * num_rows + 0.3), layout="constrained")
    axes = figure.subplots(num_rows, len(columns), squeeze=False)
    for column, (title, slices) in enumerate(columns.items()):
        axes[0, column].set_title(title, fontsize=10)
        for row, image in enumerate(slices):
            axes[row, column].imshow(image, cmap="gray", vmin=0.0, vmax=data_range, interpolation="nearest")
            axes[row, column].set_xticks([])
            axes[row, column].set_yticks([])
            if column == 0 and num_rows > 1:
                axes[row, column].set_ylabel(f"central {AXES[row]} slice", fontsize=8)
    return figure


class ImageLog(pl.Callback):
    """Writes triptychs (FBP, network, truth) of the first volumes as PNG and hands them to loggers that take images.

    Files are ``val-<volume>-epoch-<epoch>.png`` and ``test-<volume>.png``. In a distributed run the first process
    shows those of the first volumes that it has.

    Args:
        dirpath: folder of the pictures.
        num_volumes: how many volumes, counted from index 0 of each set.
        every_n_epochs: validation epochs between pictures; the last epoch always has them.

    Raises:
        ValueError: if a count is not positive.
    """

    def __init__(self, dirpath: str, num_volumes: int = 2, every_n_epochs: int = 5) -> None:
        if num_volumes < 1 or every_n_epochs < 1:
            raise ValueError(
                f"expected positive num_volumes and every_n_epochs, got {num_volumes} and {every_n_epochs}"
            )
        self.dirpath = Path(dirpath)
        self.num_volumes = num_volumes
        self.every_n_epochs = every_n_epochs

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Show the batch's volumes that are among the first ones."""
        if shows_epoch(trainer, self.every_n_epochs):
            self._show(trainer, pl_module.data_range, outputs, "val", trainer.current_epoch)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Show the batch's volumes that are among the first ones."""
        self._show(trainer, pl_module.data_range, outputs, "test", None)

    def _show(
        self, trainer: pl.Trainer, data_range: float, outputs: dict[str, Tensor], stage: str, epoch: int | None
    ) -> None:
        if not trainer.is_global_zero:
            return
        for position, index in enumerate(outputs["index"].tolist()):
            if index >= self.num_volumes:
                continue
            keys = {"FBP": "input", "network": "output", "truth": "target"}
            volumes = {title: outputs[key][position, 0] for title, key in keys.items()}
            name = f"{stage}-{index:03d}"
            publish(trainer, triptych(volumes, data_range), self.dirpath / picture_name(name, epoch), f"images/{name}")
