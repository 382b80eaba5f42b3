"""Pictures of reconstructions: input, output and truth side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from matplotlib.figure import Figure
from torch import Tensor

from src.callbacks.pictures.drawing import image_grid
from src.callbacks.pictures.evaluation import EvaluationPictures

KEYS = ("input", "output", "target")
COLOUR_CHANNELS = (3, 4)


def shown_slices(image: Tensor) -> list[Tensor]:
    """Return copies of what is drawn of an image: slices (1, H, W) in grey, or one (3, H, W) in colour.

    They are the central slice across each axis of the first channel of a volume (C, D, H, W), the first channel of an
    image (C, H, W), or its first three channels if it has colours, with transparency (C = 4) or without (C = 3).
    """
    if image.ndim == 3:
        parts = [image[: 3 if len(image) in COLOUR_CHANNELS else 1]]
    else:
        parts = [image[:1].select(axis, size // 2) for axis, size in enumerate(image.shape[1:], start=1)]
    return [part.detach().clone().float().cpu() for part in parts]


def triptych(columns: Mapping[str, Sequence[Tensor]], data_range: float) -> Figure:
    """Draw a column per title and a row per slice, see `shown_slices`, in the window [0, data_range]."""
    slices = list(zip(*columns.values(), strict=True))
    labels = [f"central\n{axis} slice" for axis in "zyx"] if len(slices) > 1 else [""]
    rows = dict(zip(labels, slices, strict=True))
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
        """Return the slices that are drawn."""
        return {key: shown_slices(sample[key]) for key in KEYS}

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
