"""Ctrl-C and SIGTERM leave a checkpoint that training can go on from."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_only


class CheckpointOnInterrupt(pl.Callback):
    """Writes ``checkpoints/last.ckpt`` when training is interrupted, and says how to go on.

    Lightning ends a run after the current step on SIGTERM, but at once on Ctrl-C, perhaps between the updates of two
    parameters. So the first Ctrl-C takes SIGTERM's way; a second one stops at once.

    Other errors leave a checkpoint as well, except a loss that is not finite: its weights are not worth going on from.

    Args:
        run_dir: the run folder.

    Attributes:
        received: the signal that ended training, or None.
    """

    def __init__(self, run_dir: str) -> None:
        self.checkpoint = Path(run_dir) / "checkpoints" / "last.ckpt"
        self.run_dir = run_dir
        self.received: signal.Signals | None = None
        self._previous_handler: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over Ctrl-C while training runs."""
        # Only the main thread may set handlers; a notebook's or a test's worker thread keeps the default.
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGINT, self._on_ctrl_c)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand Ctrl-C back."""
        self._restore_handler()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write the checkpoint, if there is a training step that it could keep."""
        self._restore_handler()
        interrupted = isinstance(exception, (SIGTERMException, KeyboardInterrupt))
        if interrupted and self.received is None:
            self.received = signal.SIGINT if isinstance(exception, KeyboardInterrupt) else signal.SIGTERM
        if trainer.state.fn != TrainerFn.FITTING or isinstance(exception, ArithmeticError):
            return
        # Saving waits for all processes, and an error need not reach them all.
        if trainer.world_size > 1 and not interrupted:
            return
        if trainer.global_step == 0:
            if interrupted:
                _say("interrupted before the first training step: nothing to go on from")
            return
        trainer.save_checkpoint(self.checkpoint, weights_only=False)  # the optimizer too
        _say(
            f"interrupted after step {trainer.global_step}, saved {self.checkpoint}\n"
            f"go on with: python train.py resume={self.run_dir}"
        )

    def _on_ctrl_c(self, signum: int, frame: FrameType | None) -> None:
        self._restore_handler()
        self.received = signal.SIGINT
        _say("\nCtrl-C: ending after this step (press again to stop at once)")
        signal.raise_signal(signal.SIGTERM)

    def _restore_handler(self) -> None:
        if self._previous_handler is not None:
            signal.signal(signal.SIGINT, self._previous_handler)
            self._previous_handler = None


@rank_zero_only
def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
