"""A guard against gradients from badly rebuilt states."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import nn

from src.invertible import POLICIES, keep_input
from src.invertible.inspection import FirstCalls, LeafError, LeafNames, reconstruction_errors
from src.utils.reduced import reduced
from src.utils.sharding import whole_parameters

METRIC = "train/reconstruction_error"


class ReversibilityGuard(pl.Callback):
    """Watches how exactly ``backprop=reversible`` rebuilds the states of the network while it trains.

    At regular steps it walks back through the invertible parts on the current batch, block by block (a block is a leaf
    of the tree), and compares each rebuilt state with the true one. It warns once about each block whose error is above
    the threshold. With ``switch`` that block keeps its input from then on, which takes one more state in memory, and
    the blocks before it start from the exact state again. Switched blocks are saved in the checkpoint.

    It logs the worst error as ``train/reconstruction_error`` at the steps that it measures. A measurement costs about a
    forward and two inverse passes without gradients, and host memory for the states between all blocks. It ignores
    policies other than ``reversible``. Each process of a distributed run watches its own batches, so a block may be
    switched in some of them only, which changes their memory but no gradient.

    Args:
        threshold: relative ℓ2 error of a rebuilt state.
        every_n_steps: batches between two measurements; the first batch is measured.
        switch: whether to switch blocks, or only to warn.

    Attributes:
        errors: by block, the error of its rebuilt input at the latest measurement. The walk continues from the exact
            state after each block past the threshold, as if its input were stored.
        switched: names of the blocks that keep their input.

    Raises:
        ValueError: for a threshold or an interval that is not positive.
    """

    def __init__(self, threshold: float = 1e-3, every_n_steps: int = 50, switch: bool = False) -> None:
        if threshold <= 0 or every_n_steps < 1:
            raise ValueError(f"expected positive threshold and every_n_steps, got {threshold} and {every_n_steps}")
        self.threshold = threshold
        self.every_n_steps = every_n_steps
        self.switch = switch
        self.errors: dict[str, float] = {}
        self.switched: list[str] = []
        self._warned: set[str] = set()
        self._step = 0
        self._watch: FirstCalls | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"switched": self.switched}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.switched = list(state_dict["switched"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Switch what an earlier run has switched."""
        modules = dict(pl_module.named_modules())
        for name in self.switched:
            keep_input(modules[name])

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Watch the invertible parts during this batch."""
        if batch_idx % self.every_n_steps:
            return
        self._step = trainer.global_step  # of the row that this batch becomes a part of
        self._watch = FirstCalls(pl_module, lambda tree: tree.backprop_policy is POLICIES["reversible"])

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        """Walk back through what was called."""
        calls = self._watch.close() if self._watch else []
        if not calls:
            return
        names = LeafNames(pl_module)
        self.errors = {}
        for call in calls:
            with whole_parameters(trainer), trainer.precision_plugin.forward_context():
                found = reconstruction_errors(call.tree, call.x, call.condition, exact_past=self.threshold)
            for error in found:
                self._judge(names(error.leaf), error, pl_module)
        worst = torch.tensor(list(self.errors.values())).max()  # NaN, if there is one
        worst = reduced(pl_module, {METRIC: worst}, "max")[METRIC]
        # A row of its own: Lightning's `log` would repeat the value at every step until the next measurement.
        trainer.callback_metrics[METRIC] = worst
        for logger in trainer.loggers:
            logger.log_metrics({METRIC: float(worst)}, step=self._step)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._watch:
            self._watch.close()

    def _judge(self, name: str, error: LeafError, net: nn.Module) -> None:
        self.errors[name] = float(np.maximum(error.rebuilt, self.errors.get(name, 0.0)))  # NaN, if one is
        if error.rebuilt <= self.threshold or name in self._warned or name in self.switched:
            return
        self._warned.add(name)
        advice = "set switch=true, or backprop=stored"
        if self.switch:
            # The leaf may be an inverse made on the way: the network's own part is inside.
            names = {part: name for name, part in net.named_modules()}
            own = next(part for part in error.leaf.modules() if part in names)
            keep_input(own)
            self.switched.append(names[own])
            advice = "its input is stored from now on"
        rank_zero_warn(
            f"block {name} rebuilds its input with a relative error of {error.rebuilt:.1e} ({error.own:.1e} without "
            f"the errors of later blocks), above the threshold {self.threshold:.1e}; gradients of earlier blocks are "
            f"equally inexact; {advice}"
        )
