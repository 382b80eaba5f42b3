"""A training that ends after some minutes, with a learning rate that falls with the time that is left."""

import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer

from src.runs.of_training import OfTraining
from src.tasks.schedules import half_cosine


class TimeBudget(OfTraining):
    """Ends the training after T minutes; at minute t the learning rate is its first value times (1 + cos(π t/T))/2.

    The step that has begun is finished. The time of validations and tests is not part of T. The processes of a
    distributed run follow the first one's clock. A resumed run has the rest of the time. Two runs with the same seed
    differ, because no two take equally many steps. `check_combinations` refuses another schedule beside it.

    Args:
        minutes: T, of training.

    Raises:
        ValueError: unless T is positive.
    """

    def __init__(self, minutes: float) -> None:
        if not minutes > 0:
            raise ValueError(f"expected positive callbacks.time_budget.minutes, got {minutes}")
        self.total_s = 60.0 * minutes
        self.spent_s = 0.0
        self._since: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and set the rate of the first step; a resumed training without time takes none."""
        self._since = time.monotonic()
        self._plan_next_step(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        """Set the rate of the next step, or stop once the time is over."""
        self._plan_next_step(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.spent_s, self._since = self._elapsed(), None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the clock."""
        self._since = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.spent_s, self._since = self._elapsed(), None

    def state_dict(self) -> dict[str, float]:
        """Return the seconds that are spent."""
        return {"spent_s": self._elapsed()}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Take over what `state_dict` returned."""
        self.spent_s = state_dict["spent_s"]

    def summary(self, trainer: Trainer) -> dict[str, Any]:
        """Return the seconds of training for summary.json; None for a test without training."""
        return {"training_s": self.spent_s or None}

    def left_s(self) -> float:
        """Return the seconds of training that are left."""
        return max(self.total_s - self._elapsed(), 0.0)

    def _plan_next_step(self, trainer: Trainer) -> None:
        share = self._share(trainer)
        self._set_rates(trainer, share)
        trainer.should_stop = trainer.should_stop or share >= 1

    def _share(self, trainer: Trainer) -> float:
        """Return the share of the time that is over, the same in all processes."""
        return trainer.strategy.broadcast(self._elapsed() / self.total_s)

    def _elapsed(self) -> float:
        return self.spent_s + (0.0 if self._since is None else time.monotonic() - self._since)

    @staticmethod
    def _set_rates(trainer: Trainer, share: float) -> None:
        factor = half_cosine(1.0, 0.0, min(share, 1.0))
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
