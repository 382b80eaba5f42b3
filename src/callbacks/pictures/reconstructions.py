"""Pictures of reconstructions: input, output and truth side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from matplotlib.figure import Figure
from torch import Tensor

from src.callbacks.pictures.drawing import image_grid
from src.callbacks.pictures.evaluation import EvaluationPictures

KEYS = ("input", "output", "target")


def central_slices(volume: Tensor) -> list[Tensor]:
    """Return the central slice across each axis of a (D, H, W) volume, or the (H, W) image itself."""
    volume = volume.detach().float().cpu()
    if volume.ndim == 2:
        return [volume]
    return [volume.select(axis, size // 2) for axis, size in enumerate(volume.shape)]


def triptych(columns: Mapping[str, Sequence[Tensor]], data_range: float) -> Figure:
    """Draw a column per title and a row per slice (H, W), in the grey window [0, data_range]."""
    slices = list(zip(*columns.values(), strict=True))
    labels = [f"central\n{axis} slice" for axis in "zyx"] if len(slices) > 1 else [""]
    rows = {label: [image[None] for image in row] for label, row in zip(labels, slices, strict=True)}
    return image_grid(rows, white=data_range, titles=list(columns), cell_inches=2.2)


class ReconstructionPictures(EvaluationPictures):
    """Writes a triptych (input, network, truth) of each of the first volumes: ``val-000-epoch-0004``, ``test-001``.

    Args:
        dirpath, every_n_epochs: see `EvaluationPictures`.
        num_volumes: number of volumes, from index 0 of each set.
    """

    def __init__(self, dirpath: str, num_volumes: int = 2, every_n_epochs: int = 5) -> None:
        super().__init__(dirpath, num_volumes, every_n_epochs)

    def kept(self, name: str, sample: dict[str, Tensor]) -> dict[str, list[Tensor]]:
        """Return the central slices of the first channels."""
        return {key: central_slices(sample[key][0]) for key in KEYS}

    def figures(self, trainer: pl.Trainer, task: Any, samples: Mapping[int, Any]) -> dict[str, Figure]:
        titles = (task.input_title, "network", "truth")
        return {
            f"{index:03d}": triptych(dict(zip(titles, columns.values(), strict=True)), _white(task, columns))
            for index, columns in samples.items()
        }


def _white(task: Any, columns: Mapping[str, Sequence[Tensor]]) -> float:
    """Return the value that is drawn white: the top of the data's range, or the truth's largest value."""
    if task.data_range is not None:
        return task.data_range
    return max(float(image.max()) for image in columns["target"]) or 1.0
