"""What all tasks share: the training step, a table of the samples of a validation or test set, the optimizer."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.invertible import PolicyName, set_backprop, undisturbed
from src.tasks.batch_checks import Field, check_batch, dtypes_of
from src.tasks.finite_loss import FiniteLoss
from src.tasks.metrics import Metric
from src.tasks.sample_table import SampleTable
from src.tasks.schedules import Plateau
from src.utils.reduced import reduced

Batch = dict[str, Tensor]
MakeOptimizer = Callable[..., Optimizer]
MakeScheduler = Callable[..., LRScheduler]


class Report(NamedTuple):
    """The result of a run as a small table for people."""

    columns: list[str]
    rows: list[list[str]]


class Task(pl.LightningModule):
    """A loss to train with, and numbers that judge each sample.

    Batches are dicts with "index" of shape (B,), the number of each sample in its set. A subclass defines the loss
    (`losses`), the numbers of a sample of a validation or test set (`judge`), their descriptions (`metrics`), and which
    data it takes (`check_data`, which may also set ``fields``).

    Args:
        net: the network.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and ``total_steps``, stepped after every optimizer step; the steps are None
            for a run without an end. None: the learning rate is constant.
        backprop: how gradients pass the invertible parts of ``net``, see :func:`src.invertible.set_backprop`.

    Attributes:
        metrics: descriptions of what the task measures; the progress bar shows the first one. Without descriptions,
            metrics have no unit and no direction, and ``monitor`` is not checked.
        fields: what a batch has besides its index, by key, images first; none: batches are not checked.
        test_table: one dict per sample of the test set, after a test.

    Raises:
        ValueError: if ``backprop`` is unknown, or the network is not of the task's ``net_type``.
    """

    metrics: tuple[Metric, ...] = ()
    net_type: ClassVar[type[nn.Module]] = nn.Module

    def __init__(
        self,
        net: nn.Module,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler | None = None,
        backprop: PolicyName = "reversible",
    ) -> None:
        super().__init__()
        if not isinstance(net, self.net_type):
            raise ValueError(
                f"expected a {self.net_type.__name__} for task={type(self).__name__.lower()}, got {type(net).__name__}"
            )
        set_backprop(net, backprop)
        self.net = net
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.fields: dict[str, Field] = {}
        self.test_table: list[dict[str, Any]] = []
        self._table = SampleTable()
        self._finite_loss = FiniteLoss()
        self._checked_stages: set[str] = set()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean "loss" of a training batch, and other means that are logged."""
        raise NotImplementedError

    def judge(self, batch: Batch, stage: str) -> tuple[dict[str, Tensor], Batch]:
        """Return the numbers of each sample, (B,) by name, and what callbacks show besides the batch.

        Args:
            batch: of a validation or test set.
            stage: ``val`` or ``test``; all batches of a stage have the same names.
        """
        raise NotImplementedError

    def check_data(self, datamodule: Any) -> None:
        """Raise ValueError unless network and data fit; nothing is generated or written yet."""
        raise NotImplementedError

    def report(self, metrics: dict[str, float | None]) -> Report | None:
        """Return the metrics of validation and test as a table, None without a test.

        Args:
            metrics: the last value of each by its full name; None where it is not finite.
        """
        titles = {"val": "validation", "test": "test"}
        stages = [stage for stage in titles if any(f"{stage}/{metric.name}" in metrics for metric in self.metrics)]
        if "test" not in stages:
            return None
        shown = [metric for metric in self.metrics if f"test/{metric.name}" in metrics]
        rows = [[m.heading, *(m.text(metrics.get(f"{stage}/{m.name}")) for stage in stages)] for m in shown]
        return Report(["", *(titles[stage] for stage in stages)], rows)

    def summarise_table(self, table: SampleTable, stage: str) -> dict[str, float]:
        """Return the metrics of a whole set; by default the mean of each column."""
        return {name: table.column(name).mean().item() for name in table.columns}

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the network."""
        return self.net(x)

    def infer(self, images: Tensor) -> Tensor:
        """Return what the task predicts for inputs of the network, (B, C, *spatial) of any size: here its output."""
        return self(images)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return what the task predicts for a batch."""
        return self.infer(batch["image"])

    def setup(self, stage: str) -> None:
        """Check the first batches anew: a fit, a validation or a test may have other data than the one before."""
        self._checked_stages.clear()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch.

        Raises:
            ValueError: if the first one has not the task's ``fields``.
            NonFiniteLossError: if it is NaN or infinite in any process. On a CPU the weights are still those before the
                step; on a GPU the loss before is checked, so that nothing waits for the one just queued.
        """
        self._check_first(batch, "train")
        losses = self.losses(batch)
        # The mean over all processes, so that all of them raise if one loss is not finite.
        means = reduced(self, losses, "mean")
        self._finite_loss.check(means["loss"], f"epoch {self.current_epoch}, step {self.global_step}")
        for name, value in means.items():
            self.log(f"train/{name}", value, on_step=True, on_epoch=False, prog_bar=name == "loss")
        return losses["loss"]

    def on_train_epoch_end(self) -> None:
        """Check the last loss of the epoch."""
        self._finite_loss.finish()

    def validation_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Judge a batch; return it with what callbacks show."""
        return self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Judge a batch; return it with what callbacks show."""
        return self._evaluate(batch, "test")

    def on_validation_epoch_start(self) -> None:
        """Start a new table."""
        self._table = SampleTable()

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation set, which decide on a `Plateau` before the epoch's checkpoint is saved."""
        metrics = self._log_table("val")
        scheduler = None if self.trainer.sanity_checking else self.lr_schedulers()
        if isinstance(scheduler, Plateau):
            scheduler.step(metrics[scheduler.monitor])

    on_test_epoch_start = on_validation_epoch_start

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test set and keep the table per sample, with the names of the data's cases."""
        self._log_table("test")
        name_of = getattr(self.trainer.datamodule, "case_name", None)  # type: ignore[attr-defined]
        names = [{"case": name_of("test", row["index"])} if name_of else {} for row in self._table.records()]
        self.test_table = [name | row for name, row in zip(names, self._table.records(), strict=True)]

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with the schedule per step where there is one."""
        optimizer = self.optimizer(self.parameters())
        _fuse_on_cpu(optimizer)
        if self.scheduler is None:
            return optimizer
        total_steps = self.trainer.estimated_stepping_batches
        scheduler = self.scheduler(optimizer, total_steps=int(total_steps) if math.isfinite(total_steps) else None)
        schedule = {"scheduler": scheduler, "interval": "step"}
        if isinstance(scheduler, Plateau):
            # Never by Lightning, whose step comes after the epoch's checkpoint: a resumed run would miss it.
            schedule |= {"monitor": scheduler.monitor, "interval": "epoch", "frequency": sys.maxsize}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def probe(self, function: Callable[[Tensor], Tensor], shape: Sequence[int]) -> Tensor:
        """Return the output of a part of the network for one sample of zeros, (1, *shape), in evaluation mode.

        Raises:
            ValueError: if the part fails.
        """
        try:
            with undisturbed(self.net):
                like = next(self.net.parameters())
                return function(torch.zeros(1, *shape, dtype=like.dtype, device=like.device))
        except RuntimeError as error:
            raise ValueError(
                f"expected a network that accepts samples of shape {tuple(shape)}, but {type(self.net).__name__} "
                f"fails: {error}"
            ) from error

    def _check_first(self, batch: Any, stage: str) -> None:
        """Refuse a wrong batch in plain words; only the first of a stage, because a check may wait for a GPU."""
        if self.fields and stage not in self._checked_stages:
            self._checked_stages.add(stage)
            is_mixed = self._trainer is not None and "mixed" in str(self._trainer.precision)
            check_batch(batch, self.fields, stage, dtypes_of(self.net, is_mixed))

    def _evaluate(self, batch: Batch, stage: str) -> Batch:
        self._check_first(batch, stage)
        values, shown = self.judge(batch, stage)
        self._table.add(batch["index"], values)
        return {**batch, **shown}

    def _log_table(self, stage: str) -> dict[str, float]:
        """Log the metrics of a stage and return them by their full names; every process has the same values."""
        self._table.gather(self.all_gather)
        headline = self.metrics[0].name if self.metrics else "loss"
        metrics = {f"{stage}/{name}": value for name, value in self.summarise_table(self._table, stage).items()}
        for name, value in metrics.items():
            self.log(name, value, prog_bar=name == f"{stage}/{headline}")
        return metrics


def _fuse_on_cpu(optimizer: Optimizer) -> None:
    """Choose the optimizer's fused kernel on a CPU, unless the configuration chooses.

    By default torch updates one tensor after the other there, which costs 8 ms of a step. With ``fused=True`` in the
    constructor, Lightning would refuse to clip gradients in mixed precision: a fused optimizer does the work of the
    gradient scaler itself.
    """
    for group in optimizer.param_groups:
        is_open = "fused" in group and group["fused"] is None
        if is_open and not any(group.get(option) for option in ("foreach", "capturable", "differentiable")):
            group["fused"] = all(p.device.type == "cpu" and p.is_floating_point() for p in group["params"]) or None
