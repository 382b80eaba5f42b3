"""Pictures of segmentations: what the scanner saw, the true classes and the predicted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from src.callbacks.pictures.base import publish, shows_epoch
from src.runs.folder import picture_name

# Okabe and Ito's: told apart by colour-blind readers too.
COLORS = ("#D55E00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#E69F00", "#0072B2")
FILL_OPACITY = 0.35


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

    Greys go from the 1st to the 99th percentile of what is not zero; zeros, the background, are black. The first array
    axis points to the right and the second one down, which is the radiological view of volumes whose axes point left,
    posterior, superior, as BraTS's.

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
            # Outside of the brain images are 0, which a z-score makes the brain's mean: there is nothing, show black.
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
        # A border of zeros closes outlines at the edge of the image.
        edges = np.arange(-1, label.shape[1] + 1), np.arange(-1, label.shape[0] + 1)
        cell.contour(*edges, np.pad(mask, 1).astype(float), levels=[0.5], colors=[_color(value)], linewidths=0.8)


class Overlays(pl.Callback):
    """Writes overlays of the first cases as PNG and hands them to loggers that take images.

    Of each case, the axial slice with most of the true tumour; where there is no truth, most of the predicted one.
    Files are ``val-overlays-epoch-<epoch>.png``, ``test-overlays.png`` and ``predict-overlays.png``. In a distributed
    run the first process shows those of the first cases that it has.

    Args:
        dirpath: folder of the pictures.
        num_cases: how many cases, counted from index 0 of each set.
        every_n_epochs: validation epochs between pictures; the last epoch always has them.
        modalities: title of each modality to show and its channel; the label maps are drawn over the first one.

    Raises:
        ValueError: for counts that are not positive, or no modality.
    """

    def __init__(
        self,
        dirpath: str,
        modalities: Mapping[str, int],
        num_cases: int = 3,
        every_n_epochs: int = 5,
    ) -> None:
        if num_cases < 1 or every_n_epochs < 1:
            raise ValueError(f"expected positive num_cases and every_n_epochs, got {num_cases} and {every_n_epochs}")
        if not modalities:
            raise ValueError("expected at least one modality to show, got none")
        self.dirpath = Path(dirpath)
        self.modalities = dict(modalities)
        self.num_cases = num_cases
        self.every_n_epochs = every_n_epochs
        self._slices: dict[int, Slice] = {}

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep a slice of the first cases."""
        if shows_epoch(trainer, self.every_n_epochs):
            self._keep(trainer, "val", outputs)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw."""
        self._draw(trainer, "val", trainer.current_epoch)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep a slice of the first cases."""
        self._keep(trainer, "test", outputs)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw."""
        self._draw(trainer, "test")

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep a slice of the first cases."""
        self._keep(trainer, "predict", {**batch, "prediction": outputs})

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw."""
        self._draw(trainer, "predict")

    def _keep(self, trainer: pl.Trainer, stage: str, shown: dict[str, Tensor]) -> None:
        if not trainer.is_global_zero:
            return
        for position, index in enumerate(shown["index"].tolist()):
            if index < self.num_cases:
                name = trainer.datamodule.case_name(stage, index)  # type: ignore[attr-defined]
                self._slices[index] = self._slice(name, {key: value[position] for key, value in shown.items()})

    def _slice(self, name: str, case: dict[str, Tensor]) -> Slice:
        maps = {title: case[key] for title, key in (("truth", "label"), ("prediction", "prediction")) if key in case}
        position = fullest_slice(next(iter(maps.values())))
        lines = [name, f"slice {position}"] + ([f"mean Dice {case['dice']:.3f}"] if "dice" in case else [])

        def cut(volume: Tensor) -> NDArray:
            return volume[..., position].detach().float().cpu().numpy()

        modalities = {title: cut(case["image"][channel]) for title, channel in self.modalities.items()}
        return Slice("\n".join(lines), modalities, {title: cut(label) for title, label in maps.items()})

    def _draw(self, trainer: pl.Trainer, stage: str, epoch: int | None = None) -> None:
        slices, self._slices = self._slices, {}
        if slices:
            name = f"{stage}-overlays"
            classes = trainer.datamodule.class_names[1:]  # type: ignore[attr-defined]
            figure = draw_overlays([slices[index] for index in sorted(slices)], classes)
            publish(trainer, figure, self.dirpath / picture_name(name, epoch), f"images/{name}")
