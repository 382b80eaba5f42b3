"""An exponential moving average of the weights."""

from src.callbacks.weight_average import ValidatedAverage


class EMA(ValidatedAverage):
    """Averages the weights, ``w̄ ← d w̄ + (1 − d) w`` after each step; validation, test and checkpoints use the average.

    Args:
        decay: d.
        update_every_n_steps: steps between two updates.
        update_starting_at_step: the first step that is averaged.

    Raises:
        ValueError: unless 0 <= decay < 1 and update_every_n_steps is positive.
    """

    def __init__(
        self, decay: float = 0.999, update_every_n_steps: int = 1, update_starting_at_step: int | None = None
    ) -> None:
        if not 0 <= decay < 1 or update_every_n_steps < 1:
            raise ValueError(
                f"expected decay in [0, 1) and a positive update_every_n_steps, got {decay} and {update_every_n_steps}"
            )
        super().__init__(lambda mean, latest, num_averaged: mean.lerp(latest, 1 - decay))
        self.update_every_n_steps = update_every_n_steps
        self.update_starting_at_step = update_starting_at_step or 0

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether a step to be averaged is over."""
        if step_idx is None:
            return False
        return step_idx >= self.update_starting_at_step and step_idx % self.update_every_n_steps == 0
