"""Ctrl-C and SIGTERM leave a checkpoint that training can go on from."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from src.callbacks.last_checkpoint import between_updates, last_checkpoint

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class CheckpointOnInterrupt(Checkpoint):
    """Writes ``checkpoints/last.ckpt`` when training is interrupted, and says how to go on.

    A signal ends training after the current optimizer step, and after the validation that is due then; so the run that
    goes on does what this one would have done. In a distributed run a signal to one process ends all of them after the
    same step. A second Ctrl-C stops at once.

    Other errors leave a checkpoint as well, except a loss that is not finite: its weights are not worth going on from.

    Args:
        run_dir: the run folder.

    Attributes:
        received: the signal that ended training, or None.
    """

    def __init__(self, run_dir: str) -> None:
        self.checkpoint = last_checkpoint(run_dir)
        self.run_dir = run_dir
        self.received: signal.Signals | None = None
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over both signals while training runs.

        Lightning's own handler would break off a validation, and in a distributed run it communicates in the middle of
        whatever the processes are at.
        """
        # Only the main thread may set handlers; a notebook's or a test's worker thread keeps the default.
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End training if a signal has come."""
        if between_updates(trainer, batch_idx):
            self._end_if_signalled(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let a validation that is due run to its end."""
        _tell_lightning(trainer, False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End training if a signal has come."""
        self._end_if_signalled(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand the signals back; one that came after the last epoch prevents the test."""
        self._end_if_signalled(trainer)
        self._restore_handlers()
        if trainer.received_sigterm:
            raise SIGTERMException

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write the checkpoint, if there is a training step that it could keep."""
        self._restore_handlers()
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

    def _end_if_signalled(self, trainer: pl.Trainer) -> None:
        signalled = 0 if self.received is None else int(self.received)
        if trainer.world_size > 1:
            latest = torch.tensor(signalled, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(latest, torch.distributed.ReduceOp.MAX)
            signalled = int(latest)
        if signalled:
            self.received = signal.Signals(signalled)
            _tell_lightning(trainer, True)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT:
            if self.received == signal.SIGINT:
                self._restore_handlers()
                raise KeyboardInterrupt
            _say("\nCtrl-C: ending after this step (press again to stop at once)")
        self.received = signal.Signals(signum)

    def _restore_handlers(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}


def _tell_lightning(trainer: pl.Trainer, received: bool) -> None:
    # Lightning ends training where its loops are consistent when it sees this flag, which its own handler sets.
    trainer._signal_connector.received_sigterm = received


@rank_zero_only
def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
