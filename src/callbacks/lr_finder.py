"""A learning rate found by a range test."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateFinder

from src.runs.folder import picture_name
from src.utils.errors import check_range, say


@contextmanager
def _endless(trainer: Trainer) -> Iterator[None]:
    """Let the test have its steps even if the run is shorter, and no validations."""
    epochs, every = trainer.fit_loop.max_epochs, trainer.check_val_every_n_epoch
    trainer.fit_loop.max_epochs, trainer.check_val_every_n_epoch = -1, sys.maxsize
    try:
        yield
    finally:
        trainer.fit_loop.max_epochs, trainer.check_val_every_n_epoch = epochs, every


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
            ValueError: if the loss tells no rate.
        """
        if trainer.ckpt_path is not None:
            return
        with _endless(trainer):
            super().on_fit_start(trainer, pl_module)
        assert self.optimal_lr is not None
        self.found = self.optimal_lr.suggestion()
        if self.found is None:
            raise ValueError(
                "expected a loss that falls at some rate of callbacks.lr_finder, got none; widen its range"
            )
        self._use(trainer, self.found)
        if trainer.is_global_zero:
            self.dirpath.mkdir(parents=True, exist_ok=True)
            figure, axes = plt.subplots()
            self.optimal_lr.plot(suggest=True, ax=axes)
            figure.savefig(self.dirpath / picture_name("learning_rate"))
            plt.close(figure)
        say(f"callbacks.lr_finder: the learning rate is {self.found:.2g}")

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
