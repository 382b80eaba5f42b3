"""How an invertible classifier sees images: what its first layers do, and straight lines between features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from src.callbacks.pictures.base import image_grid, publish
from src.callbacks.pictures.first_images import FirstImages
from src.callbacks.pictures.latent_path import interpolate
from src.invertible import Checkerboard
from src.runs.folder import picture_name


class InversionPictures(pl.Callback):
    """Writes pictures of a classifier with ``encode`` and ``inverse`` after a test; of other networks, psi only.

    ``psi``: images and the channels that space-to-depth makes of them. ``reconstructions``: images and what comes
    back from their last invertible features. ``interpolations``: ``x_t = Φ⁻¹((1 − t) Φx₀ + t Φx₁)``
    for pairs of images.

    Args:
        dirpath: folder of the pictures.
        num_images: an even number.
        num_steps: images on the way from x₀ to x₁.
        block_size: side of the blocks that psi takes apart.
        white: the value that is drawn white.

    Raises:
        ValueError: for numbers outside these.
    """

    def __init__(
        self, dirpath: str, num_images: int = 8, num_steps: int = 9, block_size: int = 4, white: float = 1.0
    ) -> None:
        if num_images < 2 or num_images % 2 or num_steps < 2:
            raise ValueError(f"expected an even num_images >= 2 and num_steps >= 2, got {num_images} and {num_steps}")
        self.dirpath = Path(dirpath)
        self.num_images = num_images
        self.num_steps = num_steps
        self.block_size = block_size
        self.white = white
        self._images = FirstImages(num_images)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first images."""
        self._images.add(outputs)

    @torch.no_grad()
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw."""
        images = self._images.take()
        if not trainer.is_global_zero or images is None:
            return
        pictures: dict[str, Mapping[str, Sequence[Tensor] | Tensor]] = {"psi": self.psi(images)}
        if pl_module.is_invertible and len(images) >= 2:
            net = pl_module.net
            recovered = net.inverse(net.encode(images))
            pictures["reconstructions"] = {"x": images, "Φ⁻¹(Φ(x))": recovered}
            starts, ends = images[0 : len(images) // 2 * 2 : 2], images[1::2]
            paths = interpolate(net.encode, net.inverse, starts, ends, self.num_steps)
            pictures["interpolations"] = {f"{2 * i} → {2 * i + 1}": path for i, path in enumerate(paths)}
        for name, rows in pictures.items():
            figure = image_grid(rows, white=self.white)
            publish(trainer, figure, self.dirpath / picture_name(f"test-{name}"), f"images/test-{name}")

    def psi(self, images: Tensor) -> dict[str, list[Tensor]]:
        """Return, for three images, the image and the first channels that ψ makes of its first channel."""
        images = images[:3, :1]
        channels = Checkerboard(self.block_size, spatial_dims=2)(images)  # (3, block_size², H/b, W/b)
        return {
            f"x, ψ(x) of {i}": [image, *parts[: self.num_images - 1, None]]
            for i, (image, parts) in enumerate(zip(images, channels, strict=True))
        }
