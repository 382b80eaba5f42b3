"""Learned post-processing: a network that maps a rough reconstruction to the truth."""

from typing import Any

import torch
from torch import Tensor, nn

from src.invertible import PolicyName
from src.tasks.base import Batch, MakeOptimizer, MakeScheduler, Report, Task
from src.tasks.image_quality import MIN_SSIM_SIZE, quality
from src.tasks.metrics import TASK_METRICS


class Reconstruction(Task):
    """Minimises the distance between the network's output and the target, and judges by PSNR and SSIM, the input's too.

    Batches are dicts: "input" and "target" of shape (B, C, *spatial), "index" of shape (B,).

    Args:
        net: the network, (B, C, *spatial) to the same shape.
        optimizer, scheduler, backprop: see `Task`.
        data_range: range of the true intensities, for PSNR and SSIM.
        criterion: called with output and target, returns their mean loss; None is ``||net(input) - target||^2 / n``.

    Raises:
        ValueError: if ``data_range`` is not positive.
    """

    metrics = TASK_METRICS["reconstruction"]

    def __init__(
        self,
        net: nn.Module,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler | None = None,
        data_range: float = 1.0,
        backprop: PolicyName = "reversible",
        criterion: nn.Module | None = None,
    ) -> None:
        super().__init__(net, optimizer, scheduler, backprop)
        if not data_range > 0:
            raise ValueError(f"expected a positive data_range, got {data_range}")
        self.data_range = data_range
        self.criterion = criterion or nn.MSELoss()
        # Quality of the inputs by stage and index. They never change, so once per set is enough.
        self._input_quality: dict[tuple[str, int], Tensor] = {}

    def check_data(self, datamodule: Any) -> None:
        """Run one empty volume of the data's size through the network.

        Raises:
            ValueError: if the network does not take or return such volumes, or the data ranges differ.
        """
        if not hasattr(datamodule, "data_range"):
            raise ValueError(f"expected a datamodule with pairs of input and target, got {type(datamodule).__name__}")
        if datamodule.data_range != self.data_range:
            raise ValueError(f"expected task.data_range={datamodule.data_range}, as in the data, got {self.data_range}")
        shape = tuple(datamodule.sample_shape)
        if min(shape[1:]) < MIN_SSIM_SIZE:
            raise ValueError(f"expected at least {MIN_SSIM_SIZE} voxels per side for SSIM, got {min(shape[1:])}")
        output = self.probe(self.net, shape)
        if tuple(output.shape[1:]) != shape:
            raise ValueError(f"expected a network that maps {shape} to the same shape, got {tuple(output.shape[1:])}")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.criterion(self(batch["input"]), batch["target"])}

    def judge(self, batch: Batch, stage: str) -> tuple[dict[str, Tensor], Batch]:
        """Return loss, PSNR and SSIM, the latter two of the input as well; and the network's output."""
        output = self(batch["input"])
        pairs = zip(output.float().split(1), batch["target"].split(1), strict=True)
        losses = torch.stack([self.criterion(*pair) for pair in pairs])
        psnr, ssim = quality(output, batch["target"], self.data_range).unbind(dim=1)
        psnr_fbp, ssim_fbp = self._judge_input(batch, stage).unbind(dim=1)
        values = {"loss": losses, "psnr": psnr, "ssim": ssim, "psnr_fbp": psnr_fbp, "ssim_fbp": ssim_fbp}
        return values, {"output": output}

    def report(self, metrics: dict[str, float | None]) -> Report | None:
        """Return PSNR and SSIM of the FBP and of the network, and the gain."""
        if "test/psnr" not in metrics:
            return None
        rows = []
        for metric in self.metrics[:2]:
            before, after = metrics[f"test/{metric.name}_fbp"], metrics[f"test/{metric.name}"]
            gain = None if before is None or after is None else after - before
            rows.append([metric.heading, metric.text(before), metric.text(after), metric.text(gain, sign=True)])
        return Report(["", "FBP", "network", "gain"], rows)

    def _judge_input(self, batch: Batch, stage: str) -> Tensor:
        keys = [(stage, index) for index in batch["index"].tolist()]
        if any(key not in self._input_quality for key in keys):
            rows = quality(batch["input"], batch["target"], self.data_range)
            self._input_quality.update(zip(keys, rows, strict=True))
        return torch.stack([self._input_quality[key] for key in keys])
