"""Which class each voxel belongs to: tumours in multimodal MRI."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from src.invertible import PolicyName
from src.invertible.arguments import check_choice
from src.tasks.base import Batch, MakeOptimizer, MakeScheduler, Report, Task
from src.tasks.batch_checks import Images, Labels
from src.tasks.data_attributes import check_attributes
from src.tasks.metrics import TASK_METRICS, Metric
from src.tasks.sample_table import SampleTable
from src.tasks.segmentation_heads import HEADS, Head, MakeCriterion, Regions, region_masks
from src.tasks.segmentation_losses import dice_ce
from src.tasks.segmentation_metrics import dice, dice_where_present, hausdorff95, sensitivity
from src.tasks.windows import SlidingWindow


class Segmentation(Task):
    """Minimises Dice loss plus cross entropy, or another criterion, and judges by Dice and sensitivity per region.

    Batches are dicts: "image" of shape (B, C, *spatial), "label" of shape (B, *spatial), "index" of shape (B,).
    Training uses crops of one size. Volumes that are judged or predicted may have any size: the network slides over
    them in windows of the training's size, and the logits of overlapping windows are blended. A volume that is smaller
    than a window is padded with zeros.

    Scores are those of the label map, as in the challenge, whatever the outputs. `src.tasks.segmentation_metrics` says
    how empty regions count. "dice_present" is Dice without the cases that lack the region.

    Args:
        net: the network, (B, C, *spatial) to (B, outputs, *spatial).
        optimizer, scheduler, backprop: see `Task`.
        outputs: ``classes`` (one output per class, see `SoftmaxClasses`) or ``regions`` (one output per region, see
            `SigmoidRegions`).
        criterion: makes another loss of these outputs, see `MakeCriterion`; None is Dice loss plus cross entropy.
        overlap, blending, sw_batch_size: of the windows, see `SlidingWindow`.
        hausdorff95: whether the 95 % Hausdorff distance is measured too, which takes seconds per case.

    Raises:
        ValueError: for an option out of its range.
    """

    metrics = TASK_METRICS["segmentation"]

    def __init__(
        self,
        net: nn.Module,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler | None = None,
        outputs: str = "classes",
        overlap: float = 0.25,
        blending: str = "gaussian",
        sw_batch_size: int = 1,
        hausdorff95: bool = False,
        backprop: PolicyName = "reversible",
        criterion: MakeCriterion | None = None,
    ) -> None:
        super().__init__(net, optimizer, scheduler, backprop)
        check_choice("task.outputs", outputs, HEADS)
        self.outputs = outputs
        self.criterion = criterion
        self.sliding = SlidingWindow(overlap, blending, sw_batch_size)
        self.hausdorff95 = hausdorff95
        # Properties of the data, which `check_data` sets before anything else is called.
        self.regions: Regions = {}
        self._window: tuple[int, ...] = ()
        self._head: Head | None = None

    def check_data(self, datamodule: Any) -> None:
        """Run one empty crop of the data's size through the network, and take over the data's classes and regions.

        Raises:
            ValueError: if the network does not take such crops, or has the wrong number of outputs.
        """
        check_attributes(datamodule, "segmented volumes", "sample_shape", "num_classes", "regions")
        shape = tuple(datamodule.sample_shape)
        head = HEADS[self.outputs](int(datamodule.num_classes), datamodule.regions, self.criterion or dice_ce)
        outputs = tuple(self.probe(self.net, shape).shape[1:])
        if outputs[1:] != shape[1:]:
            raise ValueError(f"expected a network that keeps the spatial size {shape[1:]}, got {outputs[1:]}")
        if outputs[0] != head.num_outputs:
            raise ValueError(
                f"expected a network with {head.num_outputs} output channels for task.outputs={self.outputs}, one per "
                f"{head.meaning}, got {outputs[0]}"
            )
        self.regions, self._window, self._head = dict(datamodule.regions), shape[1:], head
        self.fields = {"image": Images(shape), "label": Labels(int(datamodule.num_classes), per_voxel=True)}
        self.metrics = tuple(self._measured())

    @property
    def head(self) -> Head:
        """The meaning of the outputs."""
        assert self._head is not None, "call check_data() first"
        return self._head

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self._loss(self(batch["image"]), batch["label"])}

    def logits(self, volumes: Tensor) -> Tensor:
        """Return the blended logits of whole volumes (B, C, *spatial) in single precision: (B, outputs, *spatial)."""
        return self.sliding(self, volumes, self._window)

    def judge(self, batch: Batch, stage: str) -> tuple[dict[str, Tensor], Batch]:
        """Return loss, mean Dice and the scores of each region; and the predicted classes."""
        logits, label = self.logits(batch["image"]), batch["label"]
        prediction = self.head.label_map(logits)
        masks = region_masks(prediction, self.regions), region_masks(label, self.regions)
        scores = {
            "dice": dice(*masks),
            "sensitivity": sensitivity(*masks),
            "dice_present": dice_where_present(*masks),
        }
        if self.hausdorff95:
            scores["hausdorff95"] = hausdorff95(*masks)
        cases = zip(logits.split(1), label.split(1), strict=True)
        values = {"loss": torch.stack([self._loss(*case) for case in cases]), "dice": scores["dice"].mean(dim=1)}
        for name, per_region in scores.items():
            columns = per_region.unbind(dim=1)
            values |= {f"{name}_{r.lower()}": column for r, column in zip(self.regions, columns, strict=True)}
        return values, {"prediction": prediction, "dice": values["dice"]}

    def summarise_table(self, table: SampleTable, stage: str) -> dict[str, float]:
        """Return the mean of each column; of Dice where present, over the cases that have the region."""
        means = super().summarise_table(table, stage)
        present = [name for name in table.columns if name.startswith("dice_present_")]
        return means | {name: table.column(name).nanmean().item() for name in present}

    def infer(self, images: Tensor) -> Tensor:
        """Return the classes of whole volumes, (B, *spatial)."""
        return self.head.label_map(self.logits(images))

    def report(self, metrics: dict[str, float | None]) -> Report | None:
        """Return the scores of each region, averaged over the cases, and their means over the regions."""
        if metrics.get("test/dice") is None:
            return None
        scores = [m for m in type(self).metrics if any(k.startswith(f"test/{m.name}_") for k in metrics)]
        cells = {r: [metrics.get(f"test/{m.name}_{r.lower()}") for m in scores] for r in self.regions}
        cells["mean"] = [_mean(column) for column in zip(*cells.values(), strict=True)]
        rows = [[r, *(m.text(v) for m, v in zip(scores, values, strict=True))] for r, values in cells.items()]
        return Report(["", *(metric.heading for metric in scores)], rows)

    def _measured(self) -> Iterator[Metric]:
        """Yield the loss, the mean Dice, and each score of each region."""
        for metric in type(self).metrics:
            if metric.name == "dice" or not metric.per_region:
                yield metric
            if metric.per_region and (self.hausdorff95 or metric.name != "hausdorff95"):
                for region in self.regions:
                    name, label = f"{metric.name}_{region.lower()}", f"{metric.label} {region}"
                    yield dataclasses.replace(metric, name=name, label=label, per_region=False)

    def _loss(self, logits: Tensor, label: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            return self.head.loss(logits.float(), label)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
