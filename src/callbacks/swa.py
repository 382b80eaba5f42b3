"""The mean of the weights of the last epochs."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from torch.optim.swa_utils import get_swa_avg_fn

from src.callbacks.weight_average import ValidatedAverage


class SWA(ValidatedAverage):
    """Averages the weights at the ends of the last epochs, ``w̄ = Σ_k w_k / n`` (Izmailov et al., 2018).

    From the first averaged epoch on, validation, test and checkpoints use the average.

    Args:
        start_fraction: the fraction of ``trainer.max_epochs`` after which averaging starts, in [0, 1).

    Raises:
        ValueError: if it is out of its range.
    """

    def __init__(self, start_fraction: float = 0.75) -> None:
        if not 0 <= start_fraction < 1:
            raise ValueError(f"expected callbacks.swa.start_fraction in [0, 1), got {start_fraction}")
        super().__init__(get_swa_avg_fn())
        self.start_fraction = start_fraction
        self._is_due = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the length of the training is known.

        Raises:
            ValueError: if it is not.
        """
        if stage == "fit" and (trainer.max_epochs or -1) < 0:
            raise ValueError(f"expected trainer.max_epochs to be set for callbacks.swa, got {trainer.max_epochs}")
        super().setup(trainer, pl_module, stage)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether the last step of an epoch to be averaged is over; the validation comes after it."""
        return step_idx is not None and self._is_due

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after the last step of an epoch."""
        assert trainer.max_epochs is not None
        self._is_due = trainer.is_last_batch and trainer.current_epoch >= self.start_fraction * trainer.max_epochs
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
