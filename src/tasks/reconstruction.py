"""Learned post-processing: a network that maps a rough reconstruction to the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.invertible import set_backprop
from src.tasks.metrics import MIN_SSIM_SIZE, quality
from src.tasks.volume_table import VolumeTable

COLUMNS = ("loss", "psnr", "ssim", "psnr_fbp", "ssim_fbp")


class NonFiniteLossError(ArithmeticError):
    """The training loss is NaN or infinite."""


class Reconstruction(pl.LightningModule):
    """Minimises the squared l2 loss ||net(input) - target||^2 / n, and judges by PSNR and SSIM beside the plain input.

    Batches are dicts: "input" and "target" of shape (B, C, *spatial), "index" of shape (B,), the volume in its set.

    Args:
        net: the network, (B, C, *spatial) to the same shape.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and ``total_steps``, stepped after every optimizer step; None: constant.
        data_range: range of the true intensities, for PSNR and SSIM.
        backprop: how gradients pass the invertible parts of ``net``, see :func:`src.invertible.set_backprop`.

    Raises:
        ValueError: if ``data_range`` is not positive or ``backprop`` is unknown.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        data_range: float = 1.0,
        backprop: str = "reversible",
    ) -> None:
        super().__init__()
        if not data_range > 0:
            raise ValueError(f"expected a positive data_range, got {data_range}")
        set_backprop(net, backprop)
        self.net = net
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.data_range = data_range
        self.test_table: list[dict[str, float]] = []
        self._table = VolumeTable(COLUMNS)
        # Quality of the plain inputs by stage and index: they do not change, so once per set is enough.
        self._input_quality: dict[tuple[str, int], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's reconstruction of ``x``."""
        return self.net(x)

    def check_data(self, datamodule: Any) -> None:
        """Run one empty volume of the data's size through the network, before anything is generated or written.

        Args:
            datamodule: has ``size``, voxels per side of its cubes, and ``data_range``.

        Raises:
            ValueError: if the network does not take or return such volumes, or the data ranges differ.
        """
        if datamodule.data_range != self.data_range:
            raise ValueError(f"expected task.data_range {datamodule.data_range} of the data, got {self.data_range}")
        if datamodule.size < MIN_SSIM_SIZE:
            raise ValueError(f"expected datamodule.size of at least {MIN_SSIM_SIZE} for SSIM, got {datamodule.size}")
        shape = (1, 1, *(datamodule.size,) * 3)  # (B, C, D, H, W)
        was_training = self.net.training
        self.net.eval()
        with torch.no_grad():
            output = self.net(torch.zeros(shape, device=next(self.net.parameters()).device))
        self.net.train(was_training)
        if tuple(output.shape) != shape:
            raise ValueError(f"expected a network that maps {shape} to the same shape, got {tuple(output.shape)}")

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch.

        Raises:
            NonFiniteLossError: if it is NaN or infinite; the weights are still those before the step.
        """
        loss = F.mse_loss(self(batch["input"]), batch["target"])
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"expected a finite training loss, got {loss.item()} in epoch {self.current_epoch}, "
                f"step {self.global_step}. Likely remedies: a smaller task.optimizer.lr, a smaller "
                "trainer.gradient_clip_val, trainer.precision=32-true, backprop=stored (to rule out an inverse that "
                "loses accuracy); or the input data are not finite."
            )
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Judge a batch, and return it with the network's output for callbacks that show it."""
        return self._evaluate(batch, "val")

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Judge a batch, and return it with the network's output for callbacks that show it."""
        return self._evaluate(batch, "test")

    def on_validation_epoch_start(self) -> None:
        """Start a new table."""
        self._table = VolumeTable(COLUMNS)

    def on_validation_epoch_end(self) -> None:
        """Log the means over the validation set."""
        self._log_means("val")

    def on_test_epoch_start(self) -> None:
        """Start a new table."""
        self._table = VolumeTable(COLUMNS)

    def on_test_epoch_end(self) -> None:
        """Log the means over the test set and keep the table per volume."""
        self._log_means("test")
        self.test_table = self._table.records()

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with the schedule per step where there is one."""
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _evaluate(self, batch: dict[str, Tensor], stage: str) -> dict[str, Tensor]:
        output = self(batch["input"])
        losses = (output.float() - batch["target"]).square().flatten(start_dim=1).mean(dim=1)
        values = [losses[:, None], quality(output, batch["target"], self.data_range), self._judge_input(batch, stage)]
        self._table.add(batch["index"], torch.cat(values, dim=1))
        return {**batch, "output": output}

    def _judge_input(self, batch: dict[str, Tensor], stage: str) -> Tensor:
        keys = [(stage, index) for index in batch["index"].tolist()]
        if any(key not in self._input_quality for key in keys):
            rows = quality(batch["input"], batch["target"], self.data_range)
            self._input_quality.update(zip(keys, rows, strict=True))
        return torch.stack([self._input_quality[key] for key in keys])

    def _log_means(self, stage: str) -> None:
        self._table.gather(self.all_gather)
        for name, value in self._table.means().items():
            # Every process has the same mean; sync_dist says so to Lightning.
            self.log(f"{stage}/{name}", value, prog_bar=name == "psnr", sync_dist=True)
