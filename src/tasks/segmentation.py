"""Which class each voxel belongs to: tumours in multimodal MRI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.invertible import PolicyName
from src.tasks.base import Batch, Report, Task
from src.tasks.segmentation_heads import HEADS, Head, Regions, region_masks
from src.tasks.segmentation_metrics import dice, hausdorff95, sensitivity

BLENDINGS = ("constant", "gaussian")


class Segmentation(Task):
    """Minimises Dice loss plus cross entropy, and judges by Dice and sensitivity per region.

    Batches are dicts: "image" of shape (B, C, *spatial), "label" of shape (B, *spatial), "index" of shape (B,). The
    training sees crops of one size. Volumes to judge and to predict may have any size: the network is slid over them
    in windows of the training's size, their logits are blended, and a volume smaller than a window is padded by zeros.

    Scores are those of the label map, as the challenge takes them, whatever the loss; empty regions count as
    `src.tasks.segmentation_metrics` says.

    Args:
        net: the network, (B, C, *spatial) to (B, outputs, *spatial).
        optimizer, scheduler, backprop: see `Task`.
        loss: ``dice_ce`` (one output per class, see `SoftmaxClasses`) or ``sigmoid_regions`` (one output per region,
            see `SigmoidRegions`).
        overlap: share of a window that the next one covers too, from 0 to below 1.
        blending: weights of a window's voxels, ``gaussian`` (the centre counts most) or ``constant``.
        sw_batch_size: windows that go through the network together.
        hausdorff95: whether the 95 % Hausdorff distance is measured too; seconds per case.

    Raises:
        ValueError: for options outside these.
    """

    headline = "dice"

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        loss: str = "dice_ce",
        overlap: float = 0.25,
        blending: str = "gaussian",
        sw_batch_size: int = 1,
        hausdorff95: bool = False,
        backprop: PolicyName = "reversible",
    ) -> None:
        super().__init__(net, optimizer, scheduler, backprop)
        if loss not in HEADS:
            raise ValueError(f"expected task.loss to be one of {', '.join(HEADS)}, got {loss!r}")
        if not 0 <= overlap < 1:
            raise ValueError(f"expected task.overlap from 0 to below 1, got {overlap}")
        if blending not in BLENDINGS:
            raise ValueError(f"expected task.blending to be one of {', '.join(BLENDINGS)}, got {blending!r}")
        if sw_batch_size < 1:
            raise ValueError(f"expected a positive task.sw_batch_size, got {sw_batch_size}")
        self.loss = loss
        self.overlap = overlap
        self.blending = blending
        self.sw_batch_size = sw_batch_size
        self.hausdorff95 = hausdorff95
        # What the data are: known after `check_data`, which comes before anything else.
        self.regions: Regions = {}
        self._window: tuple[int, ...] = ()
        self._head: Head | None = None

    def check_data(self, datamodule: Any) -> None:
        """Run one empty crop of the data's size through the network, and learn the classes and regions.

        Args:
            datamodule: has ``sample_shape`` (C, *spatial) of a crop, ``num_classes`` and ``regions``, the classes of
                each.

        Raises:
            ValueError: if the network does not take such crops, or has another number of outputs.
        """
        if not hasattr(datamodule, "regions"):
            raise ValueError(f"expected a datamodule of segmented volumes, got {type(datamodule).__name__}")
        shape = tuple(datamodule.sample_shape)
        head = HEADS[self.loss](int(datamodule.num_classes), datamodule.regions)
        outputs = tuple(self.probe(self.net, shape).shape[1:])
        if outputs[1:] != shape[1:]:
            raise ValueError(f"expected a network that keeps the spatial size {shape[1:]}, got {outputs[1:]}")
        if outputs[0] != head.num_outputs:
            raise ValueError(
                f"expected a network with {head.num_outputs} output channels for task.loss={self.loss}, one per "
                f"{head.meaning}, got {outputs[0]}"
            )
        self.regions, self._window, self._head = dict(datamodule.regions), shape[1:], head

    @property
    def head(self) -> Head:
        """What the outputs stand for."""
        assert self._head is not None, "check_data() comes first"
        return self._head

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss."""
        return {"loss": self._loss(self(batch["image"]), batch["label"])}

    def logits(self, volumes: Tensor) -> Tensor:
        """Return the blended logits of whole volumes (B, C, *spatial) in single precision: (B, outputs, *spatial)."""
        logits = sliding_window_inference(
            volumes,
            roi_size=self._window,
            sw_batch_size=self.sw_batch_size,
            predictor=lambda windows: self(windows).float(),
            overlap=self.overlap,
            mode=self.blending,
        )
        assert isinstance(logits, Tensor)
        return logits

    def columns(self, stage: str) -> Sequence[str]:
        """Return loss, mean Dice, and Dice, sensitivity and perhaps the Hausdorff distance of each region."""
        per_region = ("dice", "sensitivity", *(("hausdorff95",) if self.hausdorff95 else ()))
        return ("loss", "dice", *(f"{name}_{region.lower()}" for name in per_region for region in self.regions))

    def judge(self, batch: Batch, stage: str) -> tuple[dict[str, Tensor], Batch]:
        """Return the columns, and the predicted classes."""
        logits, label = self.logits(batch["image"]), batch["label"]
        prediction = self.head.label_map(logits)
        masks = region_masks(prediction, self.regions), region_masks(label, self.regions)
        scores = {"dice": dice(*masks), "sensitivity": sensitivity(*masks)}
        if self.hausdorff95:
            scores["hausdorff95"] = hausdorff95(*masks)
        cases = zip(logits.split(1), label.split(1), strict=True)
        values = {"loss": torch.stack([self._loss(*case) for case in cases]), "dice": scores["dice"].mean(dim=1)}
        for name, per_region in scores.items():
            columns = per_region.unbind(dim=1)
            values |= {f"{name}_{r.lower()}": column for r, column in zip(self.regions, columns, strict=True)}
        return values, {"prediction": prediction, "dice": values["dice"]}

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the classes of whole volumes, (B, *spatial)."""
        return self.head.label_map(self.logits(batch["image"]))

    def on_test_epoch_end(self) -> None:
        """Log the metrics, and give the rows of the table their cases' names."""
        super().on_test_epoch_end()
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        self.test_table = [{"case": datamodule.case_name("test", row["index"]), **row} for row in self.test_table]

    def report(self, metrics: dict[str, float | None]) -> Report | None:
        """Return Dice and sensitivity of each region, averaged over the cases, and their means."""
        if metrics.get("test/dice") is None:
            return None
        titles = {"dice": "Dice", "sensitivity": "sensitivity", "hausdorff95": "Hausdorff 95 % (voxels)"}
        names = [name for name in titles if any(key.startswith(f"test/{name}_") for key in metrics)]
        cells = {r: [metrics.get(f"test/{name}_{r.lower()}") for name in names] for r in self.regions}
        cells["mean"] = [_mean(column) for column in zip(*cells.values(), strict=True)]
        rows = [[region, *("-" if v is None else f"{v:.3f}" for v in values)] for region, values in cells.items()]
        return Report(["", *(titles[name] for name in names)], rows)

    def _loss(self, logits: Tensor, label: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            return self.head.loss(logits.float(), label)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
