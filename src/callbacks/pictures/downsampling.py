"""The pictures of section 2 of the iUNet paper: invertible down- and upsamplings of a photograph."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from src.callbacks.pictures.drawing import image_grid, publish
from src.datamodules.photographs import photograph
from src.invertible import Downsampling
from src.runs.folder import picture_name
from src.tasks.channel_mixing import mixed_and_back
from src.utils.sharding import whole_parameters

# Images by their titles; a photograph is (1, 1, H, W).
Panels = dict[str, Tensor]


class DownsamplingPictures(pl.Callback):
    """Writes pictures after a test: ``figure1.png`` (pixel shuffle against Haar), ``figure2.png`` (artifacts of the
    inverse pixel shuffle), ``figure4.png`` (a random and the learned downsampling), ``channel_mixing.png`` (a colour
    image before and after an orthogonal mixing of its channels).

    Args:
        dirpath: of the pictures.
        name: the photograph, one of scikit-image's.
    """

    def __init__(self, dirpath: str, name: str = "camera") -> None:
        self.dirpath = Path(dirpath)
        self.name = name
        self.at_start: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"at_start": self.at_start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.at_start = state_dict["at_start"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Keep the matrix before training; a resumed run has it in its checkpoint."""
        if self.at_start is None:
            self.at_start = _matrices(trainer, pl_module)

    @torch.no_grad()
    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        matrices = _matrices(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        image = photograph(self.name)[None, None]
        figures = {"figure1": figure1(image), "figure2": figure2(image), "channel_mixing": channel_mixing()}
        if self.at_start is not None:
            start, learned = (_downsampling(m.double()) for m in (self.at_start, matrices))
            sparse = tiled(learned(image))
            figures["figure4"] = {"image": image, "random start": tiled(start(image)), "trained to be sparse": sparse}
        for name, panels in figures.items():
            figure = image_grid({"": [image[0] for image in panels.values()]}, titles=list(panels), cell_inches=3.2)
            publish(trainer, figure, self.dirpath / picture_name(name), f"images/{name}")


def _matrices(trainer: pl.Trainer, task: Any) -> Tensor:
    with whole_parameters(trainer):
        return task.net.matrices().detach().cpu().clone()


def figure1(image: Tensor) -> Panels:
    """Return the image, its pixel shuffle and its Haar transform."""
    shuffle, haar = _downsampling("pixel_shuffle"), _downsampling("haar")
    return {"image": image, "pixel shuffle": tiled(shuffle(image)), "Haar": tiled(haar(image))}


def figure2(image: Tensor) -> Panels:
    """Return four monochromatic channels, and their inverse pixel shuffle and inverse Haar transform.

    The channels are an image and three darker copies of it, as in a network whose features are not adapted to its
    upsampling.
    """
    coarse = tiled(_downsampling("haar")(image))[..., : image.shape[2] // 2, : image.shape[3] // 2]
    channels = torch.cat([coarse * gain for gain in (1.0, 0.75, 0.5, 0.25)], dim=1)
    shuffled = _downsampling("pixel_shuffle").inverse(channels)
    smooth = _downsampling("haar").inverse(torch.cat([2 * coarse, *[torch.zeros_like(coarse)] * 3], dim=1))
    return {
        "four channels": tiled(channels, scale=False),
        "inverse pixel shuffle": shuffled,
        "detail": _detail(shuffled),
        "inverse Haar, details 0: detail": _detail(smooth),
    }


def channel_mixing() -> Panels:
    """Return a colour photograph, a random orthogonal mixing of its channels, and the inverse of that."""
    image, mixed, recovered = mixed_and_back("exp")
    error = float((recovered - image).square().mean())
    return {"image": image, "channels mixed": mixed, f"inverse, MSE {error:.1e}": recovered}


def tiled(channels: Tensor, scale: bool = True) -> Tensor:
    """Return four channels (1, 4, H, W) as one image (1, 1, 2H, 2W).

    With ``scale``, absolute values are shown. Those of detail channels, whose energy is less than a quarter of the
    largest one, are multiplied by four, and a channel that exceeds 1 is divided by its maximum.
    """
    if scale:
        energy = channels.square().mean(dim=(0, 2, 3))
        channels = torch.where(energy[:, None, None] < energy.max() / 4, 4 * channels.abs(), channels.abs())
        peaks = channels.amax(dim=(2, 3), keepdim=True)
        channels = channels / torch.where(peaks > 1, peaks, 1.0)
    rows = [torch.cat(tuple(pair), dim=-1) for pair in (channels[0, :2], channels[0, 2:])]
    return torch.cat(rows, dim=-2)[None, None]


def _detail(image: Tensor) -> Tensor:
    height, width = (n // 2 for n in image.shape[2:])
    return image[..., height - 140 : height - 76, width - 40 : width + 24]


def _downsampling(init: str | Tensor) -> Downsampling:
    return Downsampling(1, 2, spatial_dims=2, init=init, learnable=False)
