"""How well the invertible parts of a network are inverted, measured on real data during training."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from src.invertible import FORWARD, INVERSE, Condition, InvertibleModule, State
from src.invertible.inspection import FirstCalls, relative_error
from src.utils.reduced import log_reduced
from src.utils.sharding import whole_parameters


def relative_inversion_error(module: InvertibleModule, x: State, condition: Condition = None) -> float:
    """Return ||x - f^-1(f(x))|| / ||x|| in the l2 norm, taken in double precision.

    It is the error that the gradients of ``backprop=reversible`` start from.
    """
    with torch.no_grad():
        return relative_error(INVERSE(module, FORWARD(module, x, condition), condition), x)


class Invertibility(pl.Callback):
    """Logs ``val/invertibility_error``: the worst relative error of the invertible parts on the first validation batch.

    These are the invertible parts that are inside no other one. The input of a part is that of its first call. Networks
    without an invertible part log nothing.

    Attributes:
        last_error: the latest value, or None.
    """

    def __init__(self) -> None:
        self.last_error: float | None = None
        self._watch: FirstCalls | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"last_error": self.last_error}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_error = state_dict["last_error"]

    def summary(self, trainer: pl.Trainer) -> dict[str, Any]:
        """Return the latest value."""
        return {"invertibility_error": self.last_error}

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, *rest: Any
    ) -> None:
        """Watch the invertible parts during the first batch."""
        if batch_idx == 0:
            self._watch = FirstCalls(pl_module)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        """Invert the outputs of the parts."""
        calls = self._watch.close() if self._watch else []
        if not calls:
            return
        with whole_parameters(trainer), trainer.precision_plugin.forward_context():
            errors = [relative_inversion_error(call.tree, call.x, call.condition) for call in calls]
        own = float(np.max(errors))  # NaN, if there is one
        worst = log_reduced(pl_module, {"val/invertibility_error": own}, "max", reduce_fx="max")
        self.last_error = float(worst["val/invertibility_error"])

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._watch:
            self._watch.close()
