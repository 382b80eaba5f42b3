"""How well the invertible parts of a network are inverted, measured on real data while it learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from src.invertible import InvertibleModule, invertible_roots
from src.invertible.inspection import relative_error
from src.utils.reduced import log_reduced

ENTRY_POINTS = ("forward", "forward_and_logdet")


def relative_inversion_error(module: InvertibleModule, x: Tensor, *condition: Any) -> float:
    """Return ||x - f^-1(f(x))|| / ||x|| in the l2 norm, taken in double precision.

    It is the error that the gradients of ``backprop=reversible`` start from.
    """
    with torch.no_grad():
        return relative_error(module.inverse(module(x, *condition), *condition), x)


def _bijections(module: nn.Module) -> dict[str, InvertibleModule]:
    # Inside of a padding, which no inverse can restore.
    return {name: root.bijection for name, root in invertible_roots(module).items()}


class Invertibility(pl.Callback):
    """Logs ``val/invertibility_error``: the worst relative error of the invertible parts on the first validation batch.

    An invertible part is one that lies in no larger one; its input is caught where the network calls it. Networks
    without one log nothing.

    Attributes:
        last_error: the latest value, or None.
    """

    def __init__(self) -> None:
        self.last_error: float | None = None
        # Per part, the state and, where it takes one, the condition.
        self._inputs: dict[str, tuple[Any, ...]] = {}
        self._parts: list[InvertibleModule] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the latest value."""
        return {"last_error": self.last_error}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin with the value of the checkpoint."""
        self.last_error = state_dict["last_error"]

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Catch the inputs of the invertible parts during the first batch."""
        if batch_idx > 0:
            return
        for name, part in _bijections(pl_module).items():
            self._stand_before(part, name)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Invert what the parts made of their inputs."""
        if batch_idx > 0:
            return
        self._step_aside()
        inputs, self._inputs = self._inputs, {}
        if not inputs:
            return
        parts = _bijections(pl_module)
        with trainer.precision_plugin.forward_context():
            errors = [relative_inversion_error(parts[name], *args) for name, args in inputs.items()]
        own = float(np.max(errors))  # NaN, if there is one
        worst = log_reduced(pl_module, {"val/invertibility_error": own}, "max", reduce_fx="max")
        self.last_error = float(worst["val/invertibility_error"])

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave nothing behind."""
        self._step_aside()

    def _stand_before(self, part: InvertibleModule, name: str) -> None:
        """Note the input of a part, called with or without a log-determinant, by attributes that hide its methods."""

        def catching(method: Callable) -> Callable:
            def call(x: Tensor, *condition: Any) -> Any:
                self._inputs[name] = (x.detach(), *condition)
                return method(x, *condition)

            return call

        for entry_point in ENTRY_POINTS:
            setattr(part, entry_point, catching(getattr(part, entry_point)))
        self._parts.append(part)

    def _step_aside(self) -> None:
        for part in self._parts:
            for entry_point in ENTRY_POINTS:
                delattr(part, entry_point)
        self._parts.clear()
