"""Learned post-processing: a network that maps a rough reconstruction to the truth."""

from typing import Any, get_args

import torch
from torch import Tensor, nn

from src.invertible import PolicyName
from src.invertible.arguments import check_choice
from src.tasks.base import Batch, MakeOptimizer, MakeScheduler, Report, Task
from src.tasks.batch_checks import Images
from src.tasks.data_attributes import check_attributes
from src.tasks.image_quality import SSIMWindow, check_ssim_size, quality
from src.tasks.metrics import TASK_METRICS, Metric
from src.tasks.windows import SlidingWindow

# What a report calls the input, by the end of the names of its metrics.
INPUT_TITLES = {"fbp": "FBP", "input": "input"}


class Reconstruction(Task):
    """Minimises the distance between the network's output and the target, and judges by PSNR and SSIM, the input's too.

    Batches are dicts: "input" and "target" of shape (B, C, *spatial), "index" of shape (B,). Images that are judged and
    have another size than those of the training are restored window by window. An input of another shape than its
    target, such as a sinogram, is not judged itself.

    Args:
        net: the network, from inputs to the shape of the targets.
        optimizer, scheduler, backprop: see `Task`.
        data_range: range of the true intensities, for PSNR and SSIM; None: that of each target.
        ssim_window: see `SSIMWindow`.
        input_name: what the input is, a key of INPUT_TITLES: its PSNR is ``psnr_<input_name>``.
        overlap, blending, sw_batch_size: of the windows, see `SlidingWindow`.
        criterion: called with output and target, returns their mean loss; None is ``||net(input) - target||^2 / n``.

    Raises:
        ValueError: for an option out of its range.
    """

    metrics = TASK_METRICS["reconstruction"]

    def __init__(
        self,
        net: nn.Module,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler | None = None,
        data_range: float | None = 1.0,
        ssim_window: SSIMWindow = "gaussian",
        input_name: str = "fbp",
        overlap: float = 0.25,
        blending: str = "gaussian",
        sw_batch_size: int = 1,
        backprop: PolicyName = "reversible",
        criterion: nn.Module | None = None,
    ) -> None:
        super().__init__(net, optimizer, scheduler, backprop)
        if data_range is not None and not data_range > 0:
            raise ValueError(f"expected a positive data_range, got {data_range}")
        check_choice("task.ssim_window", ssim_window, get_args(SSIMWindow))
        check_choice("task.input_name", input_name, INPUT_TITLES)
        self.data_range = data_range
        self.ssim_window = ssim_window
        self.input_name = input_name
        self.sliding = SlidingWindow(overlap, blending, sw_batch_size)
        self.metrics = tuple(metric for metric in type(self).metrics if self._is_measured(metric))
        # The size of the training's images, which `check_data` sets.
        self._window: tuple[int, ...] | None = None
        self.criterion = criterion or nn.MSELoss()
        # Quality of the inputs by stage and index. They do not change during a run, so once per set is enough.
        self._input_quality: dict[tuple[str, int], Tensor] = {}

    def check_data(self, datamodule: Any) -> None:
        """Run one empty volume of the data's size through the network.

        Raises:
            ValueError: if the network does not take or return such volumes, or the data ranges differ.
        """
        check_attributes(datamodule, "pairs of input and target", "sample_shape", "data_range")
        if self.data_range not in (None, datamodule.data_range):
            raise ValueError(f"expected task.data_range={datamodule.data_range}, as in the data, got {self.data_range}")
        shape = tuple(datamodule.sample_shape)
        target = tuple(getattr(datamodule, "target_shape", shape))
        check_ssim_size(target[1:], self.ssim_window)
        output = tuple(self.probe(self.net, shape).shape[1:])
        if output != target:
            wanted = "the same shape" if target == shape else target
            own = "; model=<your own> can reconstruct other shapes" if target != shape == output else ""
            raise ValueError(f"expected a network that maps {shape} to {wanted}, got {output}{own}")
        # Where a network keeps the size, it does so at any size.
        like = "input" if target[1:] == shape[1:] else None
        said_by = "target_shape" if hasattr(datamodule, "target_shape") else "sample_shape"
        self.fields = {"input": Images(shape), "target": Images(target, said_by, like)}
        self._window = shape[1:]
        self._input_quality.clear()

    def setup(self, stage: str) -> None:
        """Forget the inputs of the run before: a fit, a validation or a test may have other data than that one."""
        super().setup(stage)
        self._input_quality.clear()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.criterion(self(batch["input"]), batch["target"])}

    @property
    def input_title(self) -> str:
        """What reports and pictures call the input."""
        return INPUT_TITLES[self.input_name]

    def infer(self, images: Tensor) -> Tensor:
        """Return the network's output for images (B, C, *spatial) of any size."""
        # An image of the training's size is one window: without the blending's rounding.
        if self._window in (None, tuple(images.shape[2:])):
            return self(images)
        return self.sliding(self, images, self._window)

    def judge(self, batch: Batch, stage: str) -> tuple[dict[str, Tensor], Batch]:
        """Return loss, PSNR and SSIM, the latter two of the input as well if possible; and the network's output."""
        output = self.infer(batch["input"])
        pairs = zip(output.float().split(1), batch["target"].split(1), strict=True)
        losses = torch.stack([self.criterion(*pair) for pair in pairs])
        psnr, ssim = self._quality(output, batch).unbind(dim=1)
        values = {"loss": losses, "psnr": psnr, "ssim": ssim}
        if batch["input"].shape == batch["target"].shape:
            before = self._judge_input(batch, stage).unbind(dim=1)
            values |= {
                f"{name}_{self.input_name}": column for name, column in zip(("psnr", "ssim"), before, strict=True)
            }
        return values, {"output": output}

    def report(self, metrics: dict[str, float | None]) -> Report | None:
        """Return PSNR and SSIM of the input and of the network, and the gain."""
        if "test/psnr" not in metrics:
            return None
        rows = []
        for metric in self.metrics[:2]:
            before, after = metrics.get(f"test/{metric.name}_{self.input_name}"), metrics[f"test/{metric.name}"]
            gain = None if before is None or after is None else after - before
            rows.append([metric.heading, metric.text(before), metric.text(after), metric.text(gain, sign=True)])
        return Report(["", self.input_title, "network", "gain"], rows)

    def _is_measured(self, metric: Metric) -> bool:
        ending = metric.name.rpartition("_")[2]
        return ending == self.input_name or ending not in INPUT_TITLES

    def _quality(self, images: Tensor, batch: Batch) -> Tensor:
        return quality(images, batch["target"], self.data_range, self.ssim_window)

    def _judge_input(self, batch: Batch, stage: str) -> Tensor:
        keys = [(stage, index) for index in batch["index"].tolist()]
        if any(key not in self._input_quality for key in keys):
            rows = self._quality(batch["input"], batch)
            self._input_quality.update(zip(keys, rows, strict=True))
        return torch.stack([self._input_quality[key] for key in keys])
