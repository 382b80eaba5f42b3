"""Pictures of segmentations: the scan, the true classes and the predicted ones."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from src.callbacks.pictures.evaluation import EvaluationPictures

# By Okabe and Ito: colour-blind readers can tell them apart.
COLORS = ("#D55E00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#E69F00", "#0072B2")
FILL_OPACITY = 0.35
NUM_MODALITIES = 2  # are shown if none are chosen
LABEL_MAPS = {"truth": "label", "prediction": "prediction"}


class Slice(NamedTuple):
    """One axial slice of a case: modalities as (H, W) greys by title, then label maps (H, W) by title."""

    title: str
    modalities: dict[str, NDArray]
    labels: dict[str, NDArray]


def fullest_slice(label: Tensor) -> int:
    """Return the index along the last axis of (D, H, W) where most voxels are not 0; the middle one if all are."""
    counts = (label > 0).sum(dim=(0, 1))
    return int(counts.argmax()) if counts.any() else label.shape[2] // 2


def draw_overlays(cases: Sequence[Slice], classes: Sequence[str]) -> Figure:
    """Draw one row per case: its modalities, and the first of them under each label map.

    Greys go from the 1st to the 99th percentile of the values that are not zero. Zeros, the background, are black. The
    first array axis points to the right and the second one down. For volumes whose axes point left, posterior and
    superior, as in BraTS, this is the radiological view.

    Args:
        cases: all with the same titles.
        classes: names of the classes 1, 2, ….
    """
    titles = [*cases[0].modalities, *cases[0].labels]
    figure = Figure(figsize=(2.4 * len(titles), 2.4 * len(cases) + 0.7), layout="constrained")
    axes = figure.subplots(len(cases), len(titles), squeeze=False)
    for row, case in zip(axes, cases, strict=True):
        background = next(iter(case.modalities.values()))
        for cell, title in zip(row, titles, strict=True):
            image = case.modalities.get(title, background)
            low, high = _window(image)
            # Outside of the brain images are 0, which after a z-score is the mean of the brain. It is shown black.
            cell.imshow(np.where(image == 0, low, image).T, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            if title in case.labels:
                _paint(cell, case.labels[title].T, len(classes))
            height, width = image.T.shape
            cell.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        row[0].set_ylabel(case.title, fontsize=8)
    for cell, title in zip(axes[0], titles, strict=True):
        cell.set_title(title, fontsize=10)
    patches = [Patch(color=_color(value), label=name) for value, name in enumerate(classes, start=1)]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(classes), fontsize=9, frameon=False)
    return figure


def _window(image: NDArray) -> tuple[float, float]:
    inside = image[image != 0]
    if inside.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(inside, (1, 99))
    return float(low), float(max(high, low + 1e-6))


def _color(value: int) -> str:
    return COLORS[(value - 1) % len(COLORS)]


def _paint(cell: Any, label: NDArray, num_classes: int) -> None:
    """Fill each class with a transparent colour, and draw its outline."""
    for value in range(1, num_classes + 1):
        mask = label == value
        if not mask.any():
            continue
        color = np.array(to_rgba(_color(value)))
        cell.imshow(mask[..., None] * color * (1, 1, 1, FILL_OPACITY), interpolation="nearest")
        # A border of zeros closes the outlines at the edges of the image.
        edges = np.arange(-1, label.shape[1] + 1), np.arange(-1, label.shape[0] + 1)
        cell.contour(*edges, np.pad(mask, 1).astype(float), levels=[0.5], colors=[_color(value)], linewidths=0.8)


class Overlays(EvaluationPictures):
    """Writes a picture ``overlays`` of the first cases.

    It shows the axial slice of each case with most of the true tumour; without a truth, with most of the predicted one.

    Args:
        dirpath, every_n_epochs: see `EvaluationPictures`.
        modalities: title of each modality to show and its channel; the label maps are drawn over the first one. None
            for the first two of the datamodule's modalities.
        num_cases: number of cases, from index 0 of each set.

    Raises:
        ValueError: without a modality.
    """

    stages = ("val", "test", "predict")

    def __init__(
        self, dirpath: str, modalities: Mapping[str, int] | None = None, num_cases: int = 3, every_n_epochs: int = 5
    ) -> None:
        super().__init__(dirpath, num_cases, every_n_epochs)
        if modalities is not None and not modalities:
            raise ValueError("expected at least one modality to show, got none")
        self.modalities = None if modalities is None else dict(modalities)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Choose the modalities, if none are given."""
        if self.modalities is None:
            names = getattr(trainer.datamodule, "modalities", ("image",))  # type: ignore[attr-defined]
            self.modalities = {name: channel for channel, name in enumerate(names[:NUM_MODALITIES])}

    def kept(self, name: str, sample: dict[str, Tensor]) -> Slice:
        """Return the slice of a case that is shown."""
        assert self.modalities is not None
        maps = {title: sample[key] for title, key in LABEL_MAPS.items() if key in sample}
        position = fullest_slice(next(iter(maps.values())))
        lines = [name, f"slice {position}"] + ([f"mean Dice {sample['dice']:.3f}"] if "dice" in sample else [])

        def cut(volume: Tensor) -> NDArray:
            return volume[..., position].detach().float().cpu().numpy().copy()

        modalities = {title: cut(sample["image"][channel]) for title, channel in self.modalities.items()}
        return Slice("\n".join(lines), modalities, {title: cut(label) for title, label in maps.items()})

    def figures(self, trainer: pl.Trainer, task: Any, samples: Mapping[int, Slice]) -> dict[str, Figure]:
        if not samples:
            return {}
        classes = trainer.datamodule.class_names[1:]  # type: ignore[attr-defined]
        return {"overlays": draw_overlays(list(samples.values()), classes)}
