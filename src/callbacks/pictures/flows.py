"""What a normalizing flow draws and how it sees images: samples, reconstructions, interpolations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from src.callbacks.pictures.base import image_grid, publish
from src.callbacks.pictures.first_images import FirstImages
from src.callbacks.pictures.latent_path import interpolate
from src.models.density import DensityModel
from src.runs.folder import picture_name
from src.utils.random_stream import own_stream


class FlowPictures(pl.Callback):
    """Writes three pictures of a `DensityModel`, during training (``val-…-epoch-<epoch>.png``) and after a test.

    ``samples``: one row per temperature T, from latents of N(0, T²). ``reconstructions``: images, what comes back
    from their latents, and the absolute difference, ``DIFFERENCE_GAIN`` times enlarged. ``interpolations``: straight
    lines between the latents of pairs of images.

    Args:
        dirpath: folder of the pictures.
        num_images: images per row; an even number.
        temperatures: of the samples.
        every_n_epochs: validation epochs between pictures.
        seed: of the samples, so that pictures of different epochs and networks show the same latents.

    Raises:
        ValueError: for numbers outside these.
    """

    DIFFERENCE_GAIN = 1000.0

    def __init__(
        self,
        dirpath: str,
        num_images: int = 8,
        temperatures: Sequence[float] = (1.0, 0.9, 0.7, 0.5),
        every_n_epochs: int = 5,
        seed: int = 0,
    ) -> None:
        if num_images < 2 or num_images % 2 or every_n_epochs < 1:
            raise ValueError(
                f"expected an even num_images >= 2 and every_n_epochs >= 1, got {num_images} and {every_n_epochs}"
            )
        if not temperatures or min(temperatures) < 0:
            raise ValueError(f"expected temperatures >= 0, got {list(temperatures)}")
        self.dirpath = Path(dirpath)
        self.num_images = num_images
        self.temperatures = list(temperatures)
        self.every_n_epochs = every_n_epochs
        self.seed = seed
        self._images = FirstImages(num_images)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first images."""
        self._images.add(outputs)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first images."""
        self._images.add(outputs)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw in the chosen epochs."""
        images, epoch = self._images.take(), trainer.current_epoch
        if not trainer.sanity_checking and epoch % self.every_n_epochs == 0:
            self._show(trainer, pl_module.net, images, "val", epoch)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw."""
        self._show(trainer, pl_module.net, self._images.take(), "test", None)

    @torch.no_grad()
    def _show(
        self, trainer: pl.Trainer, model: DensityModel, images: Tensor | None, stage: str, epoch: int | None
    ) -> None:
        if not trainer.is_global_zero:
            return
        with trainer.precision_plugin.forward_context():
            pictures = {"samples": self.samples(model)}
            if images is not None and len(images) >= 2:
                pictures["reconstructions"] = self.reconstructions(model, images)
                pictures["interpolations"] = self.interpolations(model, images)
        for name, rows in pictures.items():
            figure = image_grid(rows, white=model.num_bins - 1)
            title = f"{stage}-{name}"
            publish(trainer, figure, self.dirpath / picture_name(title, epoch), f"images/{title}")

    def samples(self, model: DensityModel) -> dict[str, Tensor]:
        """Return a row of samples per temperature, without a trace in the random stream of the training."""
        device = next(model.parameters()).device
        rows = {}
        for temperature in self.temperatures:
            with own_stream(self.seed, device):
                rows[f"T = {temperature:g}"] = model.sample(self.num_images, temperature)
        return rows

    def reconstructions(self, model: DensityModel, images: Tensor) -> dict[str, Tensor]:
        """Return images, their reconstructions, and the enlarged difference to the middle of their bins."""
        recovered = model.decode(model.encode(images))
        difference = (recovered - images - 0.5).abs() * self.DIFFERENCE_GAIN
        return {"x": images, "f⁻¹(f(x))": recovered, f"{self.DIFFERENCE_GAIN:g} × |difference|": difference}

    def interpolations(self, model: DensityModel, images: Tensor) -> dict[str, Tensor]:
        """Return one row per pair of images, from the first to the second."""
        starts, ends = images[0 : len(images) // 2 * 2 : 2], images[1::2]
        paths = interpolate(model.encode, model.decode, starts, ends, self.num_images)
        return {f"{2 * i} → {2 * i + 1}": path for i, path in enumerate(paths)}
