"""Drawing images side by side, and handing figures to files and loggers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytorch_lightning as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pytorch_lightning.loggers import Logger, WandbLogger
from torch import Tensor

from src.loggers.tensorboard_logger import TensorBoardRun
from src.utils.files import atomic_write

CELL_INCHES = 0.8


def image_grid(rows: Mapping[str, Sequence[Tensor] | Tensor], white: float = 1.0) -> Figure:
    """Draw one titled row of images per entry, each (1, H, W) in grey or (3, H, W) in colour.

    All share the range [0, white]: what lies outside is black or white.
    """
    num_columns = max(len(images) for images in rows.values())
    figure = Figure(figsize=(CELL_INCHES * num_columns + 1.2, CELL_INCHES * len(rows) + 0.1), layout="constrained")
    axes = figure.subplots(len(rows), num_columns, squeeze=False)
    for cells, (title, images) in zip(axes, rows.items(), strict=True):
        for cell in cells:
            cell.set_axis_off()
        for cell, image in zip(cells, images, strict=False):
            cell.imshow(_as_picture(image, white), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        cells[0].text(-0.15, 0.5, title, transform=cells[0].transAxes, ha="right", va="center", fontsize=8)
    return figure


def _as_picture(image: Tensor, white: float) -> NDArray:
    """(1, H, W) as (H, W), (3, H, W) as (H, W, 3), in [0, 1]."""
    if image.shape[0] not in (1, 3):
        raise ValueError(f"expected images of 1 or 3 channels to draw, got {image.shape[0]}")
    array = (image.detach().float().cpu() / white).clamp(0, 1).permute(1, 2, 0).numpy()
    return array[..., 0] if array.shape[2] == 1 else array


def shows_epoch(trainer: pl.Trainer, every_n_epochs: int) -> bool:
    """Whether a validation is one that pictures are made of: every n-th, and the last epoch's."""
    epoch = trainer.current_epoch
    is_last = trainer.max_epochs is not None and epoch + 1 == trainer.max_epochs
    return not trainer.sanity_checking and (epoch % every_n_epochs == 0 or is_last)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def publish(trainer: pl.Trainer, figure: Figure, path: Path, key: str) -> None:
    """Write a figure as PNG and show it as ``key`` in loggers that take images."""
    save_figure(figure, path)
    for logger in trainer.loggers:
        _send(logger, key, path, trainer.global_step)


def _send(logger: Logger, key: str, path: Path, step: int) -> None:
    if isinstance(logger, WandbLogger):
        # No step: W&B's own counter runs ahead of Lightning's.
        logger.log_image(key, [str(path)])
    elif isinstance(logger, TensorBoardRun):
        logger.log_image(key, path, step)
