"""A training whose loss is not finite ends with an error."""

from __future__ import annotations

from torch import Tensor

from src.utils.host_copy import HostCopy


class NonFiniteLossError(ArithmeticError):
    """Raised when the training loss is NaN or infinite."""


class FiniteLoss:
    """Refuses a loss that is NaN or infinite: on a CPU at once, on a GPU in the next step.

    A check in the same step would wait for the GPU, which would then be idle until its next work is queued.
    """

    def __init__(self) -> None:
        self._waiting: tuple[HostCopy, str] | None = None

    def check(self, loss: Tensor, place: str) -> None:
        """Take note of a loss that was computed at a place, such as an epoch and a step, and refuse the one before.

        Raises:
            NonFiniteLossError: for a loss that is not finite.
        """
        before, self._waiting = self._waiting, (HostCopy(loss), place)
        if before is not None:
            _refuse(*before)
        if not loss.is_cuda:
            self.finish()

    def finish(self) -> None:
        """Refuse the last loss if it is not finite.

        Raises:
            NonFiniteLossError: as `check`.
        """
        last, self._waiting = self._waiting, None
        if last is not None:
            _refuse(*last)


def _refuse(copy: HostCopy, place: str) -> None:
    loss = copy.wait()
    if not loss.isfinite():
        raise NonFiniteLossError(
            f"expected a finite training loss, got {loss.item()} in {place}. Possible remedies: a smaller "
            "task.optimizer.lr, a smaller trainer.gradient_clip_val, trainer.precision=32-true, backprop=stored (if "
            "the inverse is inexact). Also check that the input data are finite."
        )
