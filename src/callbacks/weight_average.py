"""What averages of the weights share: they are validated, tested and stored as the checkpoint's weights."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

Average = Callable[[Tensor, Tensor, Tensor], Tensor]


class ValidatedAverage(WeightAveraging):
    """Lightning's WeightAveraging with four changes.

    Lightning would test the weights in training, which were not validated. Here a test loads "state_dict" of the
    checkpoint, the average; only resumed runs load the weights in training. Lightning exchanges the two for a
    validation, and would save a run that is interrupted there with one in place of the other. Before the first update
    its average is the initial weights; here, the weights in training take its place until then. It also averages
    buffers of integers and flags, such as the order of a permutation, and rounds them down; here, they are copied.

    Args:
        average: the new average of the former one, the weights and the number of averages taken so far; of equal
            numbers, that number, so that buffers which never change stay as they are.
    """

    _exchanged = False

    def __init__(self, average: Average) -> None:
        super().__init__(avg_fn=partial(_of_real_numbers, average))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in the place of the weights."""
        if self._has_begun:
            super().on_validation_epoch_start(trainer, pl_module)
            self._exchanged = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights back."""
        if self._exchanged:
            super().on_validation_epoch_end(trainer, pl_module)
            self._exchanged = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average as the weights."""
        if self._has_begun:
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save average and weights under their own names, also in the middle of a validation."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._exchanged:
            weights, average = checkpoint["state_dict"], checkpoint["current_model_state"]
            checkpoint.update(state_dict=average, current_model_state=weights)
        elif self._average_model is not None and not self._has_begun:
            checkpoint["state_dict"] = checkpoint["current_model_state"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load average and weights to continue training; a test has the average already."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    @property
    def _has_begun(self) -> bool:
        return self._average_model is not None and int(self._average_model.n_averaged) > 0


@contextmanager
def validated_weights(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Give the network inside the block the weights that a validation of it would see."""
    averages = [callback for callback in trainer.callbacks if isinstance(callback, ValidatedAverage)]  # type: ignore[attr-defined]
    for average in averages:
        average.on_validation_epoch_start(trainer, pl_module)
    try:
        yield
    finally:
        for average in averages:
            average.on_validation_epoch_end(trainer, pl_module)


def check_average_goes_on(checkpoint: Mapping[str, Any], callbacks: Iterable[Callback]) -> None:
    """Check that a training whose weights were averaged is continued with an average, and not from it.

    Raises:
        ValueError: if there is an average in the checkpoint and no callback for it.
    """
    if "averaging_state" in checkpoint and not any(isinstance(c, WeightAveraging) for c in callbacks):
        raise ValueError(
            "expected an average of the weights (callbacks=ema or callbacks=swa) as in the training, because the "
            "checkpoint holds one, got none; a training without it is a new run"
        )


def _of_real_numbers(average: Average, mean: Tensor, latest: Tensor, num_averaged: Tensor) -> Tensor:
    """The average of real numbers; the latest of integers and flags."""
    return average(mean, latest, num_averaged) if mean.is_floating_point() or mean.is_complex() else latest
