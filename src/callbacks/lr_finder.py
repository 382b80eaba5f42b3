"""A learning rate found by a range test."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateFinder
from torch import Tensor

from src.runs.folder import picture_name
from src.utils.errors import check_range, say

# Steps that the running mean of the loss takes to forget its start.
SETTLED = 10


@contextmanager
def _endless(trainer: Trainer) -> Iterator[None]:
    """Let the test have its steps even if the run is shorter, and no validations."""
    loop, epochs = trainer.fit_loop, trainer.fit_loop.max_epochs
    every, interval = trainer.check_val_every_n_epoch, trainer.val_check_interval
    by_steps = every is None and isinstance(interval, int)
    loop.max_epochs = -1
    if by_steps:  # then an interval may be longer than an epoch
        trainer.val_check_interval = sys.maxsize
    else:
        trainer.check_val_every_n_epoch = sys.maxsize
    try:
        yield
    finally:
        loop.max_epochs = epochs
        trainer.check_val_every_n_epoch, trainer.val_check_interval = every, interval
        if by_steps:  # Lightning has made this of the interval, once
            trainer.val_check_batch = interval


@contextmanager
def _mean_losses(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Let each process see the mean loss of all, and its own gradient: Lightning's test takes the first one's loss."""
    step = pl_module.training_step

    def training_step(*arguments: Any) -> Tensor:
        loss: Any = step(*arguments)
        own = loss.detach()
        return loss + (trainer.strategy.reduce(own.clone(), reduce_op="mean") - own)

    pl_module.training_step = training_step  # type: ignore[method-assign]  # hides the method
    try:
        yield
    finally:
        del pl_module.training_step


class LRFinder(LearningRateFinder):
    """Trains with a rising learning rate, and starts anew with the rate at which the loss fell fastest (Smith, 2017).

    The loss over the rate is drawn in images/learning_rate.png. A resumed run keeps its rate.

    Args:
        dirpath: folder of the picture.
        min_lr, max_lr: the range.
        num_steps: steps of the test, spaced evenly in the logarithm of the rate.

    Raises:
        ValueError: unless 0 < min_lr < max_lr and there are 20 steps at least.
    """

    def __init__(self, dirpath: str, min_lr: float = 1e-6, max_lr: float = 1.0, num_steps: int = 100) -> None:
        if not 0 < min_lr < max_lr:
            raise ValueError(f"expected 0 < min_lr < max_lr in callbacks.lr_finder, got {min_lr} and {max_lr}")
        check_range(20, **{"callbacks.lr_finder.num_steps": num_steps})
        super().__init__(min_lr, max_lr, num_steps, update_attr=False)
        self.dirpath = Path(dirpath)
        self.found: float | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Search, unless the run is a resumed one.

        Raises:
            ValueError: if the loss falls nowhere.
        """
        if trainer.ckpt_path is not None:
            return
        with _endless(trainer), _mean_losses(trainer, pl_module):
            super().on_fit_start(trainer, pl_module)
        assert self.optimal_lr is not None
        rates, losses = self.optimal_lr.results["lr"], self.optimal_lr.results["loss"]
        self.found = steepest(rates, losses)
        self._use(trainer, self.found)
        if trainer.is_global_zero:
            self.dirpath.mkdir(parents=True, exist_ok=True)
            _picture(rates, losses, self.found).savefig(self.dirpath / picture_name("learning_rate"))
        say(f"callbacks.lr_finder: the learning rate is {self.found:.2g}")

    def state_dict(self) -> dict[str, Any]:
        return {"found": self.found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.found = state_dict["found"]

    def summary(self, trainer: Trainer) -> dict[str, Any]:
        """Return the rate for summary.json."""
        return {} if self.found is None else {"learning_rate": self.found}

    @staticmethod
    def _use(trainer: Trainer, rate: float) -> None:
        """Replace the peak of every schedule, which scales it by a factor of its own."""
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] *= rate / group.get("initial_lr", group["lr"])
                group["initial_lr"] = rate
        for config in trainer.lr_scheduler_configs:
            if hasattr(config.scheduler, "base_lrs"):
                config.scheduler.base_lrs = [rate for _ in config.scheduler.base_lrs]


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate r with the smallest d loss / d log r, from the 11th step on, when the mean loss has settled.

    Lightning's own suggestion is that of d loss / d r, which is almost always one of the smallest rates.

    Raises:
        ValueError: if the loss falls at none of them.
    """
    x, y = np.asarray(rates)[SETTLED:], np.asarray(losses)[SETTLED:]
    slopes = np.gradient(y, np.log(x)) if len(x) > 1 else np.zeros(1)
    # A diverging loss is not finite.
    slopes = np.where(np.isfinite(slopes), slopes, np.inf)
    best = int(slopes.argmin())
    if not slopes[best] < 0:
        raise ValueError(
            "expected a loss that falls at some rate from callbacks.lr_finder.min_lr to max_lr, got none; "
            "more steps (callbacks.lr_finder.num_steps) or larger batches average the noise of the loss"
        )
    return float(x[best])


def _picture(rates: Sequence[float], losses: Sequence[float], found: float) -> Figure:
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(rates, losses)
    axes.axvline(found, color="tab:red", label=f"{found:.2g}")
    axes.set(xlabel="learning rate", ylabel="training loss, running mean")
    axes.legend()
    return figure
