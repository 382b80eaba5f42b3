"""Drawing images side by side, and handing figures to files and loggers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytorch_lightning as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from src.loggers.tensorboard_logger import TensorBoardRun
from src.utils.files import atomic_write


def image_grid(
    rows: Mapping[str, Sequence[Tensor] | Tensor],
    white: float = 1.0,
    titles: Sequence[str] = (),
    cell_inches: float = 0.8,
) -> Figure:
    """Draw rows of images by the text on their left, each image (1, H, W) in grey or (3, H, W) in colour.

    All share the range [0, white]: equal greys are equal values, and values outside are drawn black or white.
    ``titles`` are those of the columns, and ``cell_inches`` is the side of an image.
    """
    num_columns = max(len(images) for images in rows.values())
    width, height = cell_inches * num_columns + (1.2 if any(rows) else 0), cell_inches * len(rows) + 0.1
    figure = Figure(figsize=(width, height + 0.3 * bool(titles)), layout="constrained")
    axes = figure.subplots(len(rows), num_columns, squeeze=False)
    for cells, (label, images) in zip(axes, rows.items(), strict=True):
        for cell in cells:
            cell.set_axis_off()
        for cell, image in zip(cells, images, strict=False):
            cell.imshow(_as_picture(image, white), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        cells[0].text(-0.15, 0.5, label, transform=cells[0].transAxes, ha="right", va="center", fontsize=8)
    for cell, title in zip(axes[0], titles, strict=False):
        cell.set_title(title, fontsize=10)
    return figure


def _as_picture(image: Tensor, white: float) -> NDArray:
    """Return (1, H, W) as (H, W) and (3, H, W) as (H, W, 3), in [0, 1]."""
    if image.shape[0] not in (1, 3):
        raise ValueError(f"expected images of 1 or 3 channels to draw, got {image.shape[0]}")
    array = (image.detach().float().cpu() / white).clamp(0, 1).permute(1, 2, 0).numpy()
    return array[..., 0] if array.shape[2] == 1 else array


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, completely or not at all."""
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)


def publish(trainer: pl.Trainer, figure: Figure, path: Path, key: str) -> None:
    """Write a figure as PNG, and show it as ``key`` in loggers that take images."""
    save_figure(figure, path)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            # Without a step: W&B's own counter is ahead of Lightning's.
            logger.log_image(key, [str(path)])
        elif isinstance(logger, TensorBoardRun):
            logger.log_image(key, path, trainer.global_step)
