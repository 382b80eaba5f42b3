"""How well the invertible parts of a network are inverted, measured on real data while it learns."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from src.invertible import InvertibleModule, invertible_roots
from src.invertible.reconstruction import relative_error


def relative_inversion_error(module: InvertibleModule, x: Tensor) -> float:
    """Return ||x - f^-1(f(x))|| / ||x|| in the l2 norm, taken in double precision.

    It is the error that the gradients of ``backprop=reversible`` start from.
    """
    with torch.no_grad():
        return relative_error(module.inverse(module(x)), x)


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
        self._inputs: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Catch the inputs of the invertible parts during the first batch."""
        if batch_idx > 0:
            return
        for name, part in _bijections(pl_module).items():
            self._hooks.append(part.register_forward_pre_hook(self._catcher(name)))

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
        self._remove_hooks()
        inputs, self._inputs = self._inputs, {}
        if not inputs:
            return
        parts = _bijections(pl_module)
        with trainer.precision_plugin.forward_context():
            self.last_error = max(relative_inversion_error(parts[name], x) for name, x in inputs.items())
        pl_module.log("val/invertibility_error", self.last_error, on_epoch=True, reduce_fx="max", sync_dist=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave no hook behind."""
        self._remove_hooks()

    def _catcher(self, name: str) -> Any:
        def catch(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._inputs[name] = args[0].detach()

        return catch

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
