"""Pictures of an invertible classifier: its first layer, reconstructions, interpolations between features."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from src.callbacks.pictures.drawing import image_grid
from src.callbacks.pictures.evaluation import EvaluationPictures
from src.invertible import Checkerboard
from src.tasks.latent_path import interpolations


class InversionPictures(EvaluationPictures):
    """Writes pictures of a classifier with ``encode`` and ``inverse`` after a test; of other networks, psi only.

    ``psi``: images and their channels after space-to-depth. ``reconstructions``: images, and what the network recovers
    from their last invertible features. ``interpolations``: ``x_t = Φ⁻¹((1 − t) Φx₀ + t Φx₁)`` for pairs of images.

    Args:
        dirpath: folder of the pictures.
        num_images: an even number.
        num_steps: number of images from x₀ to x₁.
        block_size: side of the blocks that psi takes apart.
        white: the value that is drawn white.

    Raises:
        ValueError: for a number out of its range.
    """

    stages = ("test",)

    def __init__(
        self, dirpath: str, num_images: int = 8, num_steps: int = 9, block_size: int = 4, white: float = 1.0
    ) -> None:
        super().__init__(dirpath, num_images)
        if num_images % 2 or num_steps < 2:
            raise ValueError(f"expected an even num_images and num_steps >= 2, got {num_images} and {num_steps}")
        self.num_steps = num_steps
        self.block_size = block_size
        self.white = white

    def figures(self, trainer: pl.Trainer, task: Any, samples: Mapping[int, Tensor]) -> dict[str, Figure]:
        """Return the pictures that the network allows."""
        if not samples:
            return {}
        images, net = torch.stack(list(samples.values())), task.net
        pictures: dict[str, Mapping[str, Sequence[Tensor] | Tensor]] = {"psi": self.psi(images)}
        if task.is_invertible and len(images) >= 2:
            pictures["reconstructions"] = {"x": images, "Φ⁻¹(Φ(x))": net.inverse(net.encode(images))}
            pictures["interpolations"] = interpolations(net.encode, net.inverse, images, self.num_steps)
        return {name: image_grid(rows, white=self.white) for name, rows in pictures.items()}

    def psi(self, images: Tensor) -> dict[str, list[Tensor]]:
        """Return, for three images, the image and the first channels of ψ of its first channel."""
        images = images[:3, :1]
        channels = Checkerboard(self.block_size, spatial_dims=2)(images)  # (3, block_size², H/b, W/b)
        return {
            f"x, ψ(x) of {i}": [image, *parts[: self.count - 1, None]]
            for i, (image, parts) in enumerate(zip(images, channels, strict=True))
        }
