"""Pictures of a normalizing flow: samples, reconstructions, interpolations."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from src.callbacks.pictures.drawing import image_grid
from src.callbacks.pictures.evaluation import EvaluationPictures
from src.models.density import DensityModel
from src.tasks.latent_path import check_path, interpolations
from src.utils.random_stream import own_stream

DIFFERENCE_GAIN = 1000.0


class FlowPictures(EvaluationPictures):
    """Writes three pictures of a `DensityModel`.

    ``samples``: one row per temperature T, from latents of N(0, T²). ``reconstructions``: images, their reconstructions
    from the latents, and the absolute difference, ``DIFFERENCE_GAIN`` times enlarged. ``interpolations``: paths
    between the latents of pairs of images.

    Args:
        dirpath, every_n_epochs: see `EvaluationPictures`.
        num_images: images per row; an even number.
        temperatures: of the samples.
        path: of the interpolations, see `src.tasks.latent_path`.
        seed: of the samples, so that pictures of different epochs and networks show the same latents.

    Raises:
        ValueError: for a number out of its range, or an unknown path.
    """

    def __init__(
        self,
        dirpath: str,
        num_images: int = 8,
        temperatures: Sequence[float] = (1.0, 0.9, 0.7, 0.5),
        every_n_epochs: int = 5,
        path: str = "straight",
        seed: int = 0,
    ) -> None:
        super().__init__(dirpath, num_images, every_n_epochs)
        if num_images % 2:
            raise ValueError(f"expected an even num_images, got {num_images}")
        if not temperatures or min(temperatures) < 0:
            raise ValueError(f"expected temperatures >= 0, got {list(temperatures)}")
        check_path(path)
        self.temperatures = list(temperatures)
        self.path = path
        self.seed = seed

    def figures(self, trainer: pl.Trainer, task: Any, samples: Mapping[int, Tensor]) -> dict[str, Figure]:
        """Return the three pictures; without two images only the samples."""
        model = task.net
        with trainer.precision_plugin.forward_context():
            pictures = {"samples": self.samples(model)}
            if len(samples) >= 2:
                images = torch.stack(list(samples.values()))
                pictures["reconstructions"] = reconstructions(model, images)
                pictures["interpolations"] = interpolations(model.encode, model.decode, images, self.count, self.path)
        return {name: image_grid(rows, white=model.num_bins - 1) for name, rows in pictures.items()}

    def samples(self, model: DensityModel) -> dict[str, Tensor]:
        """Return a row of samples per temperature; the random stream of the training stays as it was."""
        device = next(model.parameters()).device
        rows = {}
        for temperature in self.temperatures:
            with own_stream(self.seed, device):
                rows[f"T = {temperature:g}"] = model.sample(self.count, temperature)
        return rows


def reconstructions(model: DensityModel, images: Tensor) -> dict[str, Tensor]:
    """Return images, their reconstructions, and the enlarged difference to the middle of their bins."""
    recovered = model.decode(model.encode(images))
    difference = (recovered - images - 0.5).abs() * DIFFERENCE_GAIN
    return {"x": images, "f⁻¹(f(x))": recovered, f"{DIFFERENCE_GAIN:g} × |difference|": difference}
