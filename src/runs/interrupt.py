"""Signals that end training leave a checkpoint from which training resumes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from src.runs.folder import RunFolder
from src.runs.last_checkpoint import between_updates
from src.utils.errors import add_note, say
from src.utils.signals import Handlers, hand_back, leave_closed_terminal, take_over

if TYPE_CHECKING:
    from src.runs.build import Run


class CheckpointOnInterrupt(Checkpoint):
    """Writes ``checkpoints/last.ckpt`` when a signal ends training: Ctrl-C, SIGTERM, SIGHUP, SIGUSR1.

    Training ends after the current optimizer step and the validation that is due after it, so that the resumed run
    does what this one would have done. In a distributed run, a signal to one process ends all of them after the same
    step. A second Ctrl-C stops immediately.

    A second Ctrl-C or an error interrupts a step or a validation and writes no checkpoint: random numbers, counters
    and tables would be ahead of the weights. The run resumes from the previous checkpoint.

    Attributes:
        received: the signal that ended training; None without one.
    """

    def __init__(self, run_dir: str) -> None:
        self.checkpoint = RunFolder(run_dir).checkpoint()
        self.received: signal.Signals | None = None
        self._previous_handlers: Handlers = {}
        self._owner = os.getpid()
        # Whether Lightning was told to stop, which it does between two steps or epochs.
        self._ending = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle the signals while training runs.

        Lightning's own handler would interrupt a validation, and in a distributed run it communicates at once,
        whatever the processes are doing.
        """
        self._owner = os.getpid()
        self._previous_handlers = take_over(self._on_signal)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End training if a signal was received."""
        if between_updates(trainer, batch_idx):
            self._end_if_signalled(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a validation that is due finish."""
        self._tell_lightning(trainer, False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End training if a signal was received."""
        self._end_if_signalled(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the handlers; a signal received after the last epoch prevents the test."""
        self._end_if_signalled(trainer)
        hand_back(self._previous_handlers)
        if trainer.received_sigterm:
            raise SIGTERMException

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the checkpoint if Lightning stopped as it was told to; then restore the handlers.

        Not earlier: a signal to a process and to its group arrives twice.
        """
        if self.received is None and isinstance(exception, (SIGTERMException, KeyboardInterrupt)):
            self.received = signal.SIGINT if isinstance(exception, KeyboardInterrupt) else signal.SIGTERM
        try:
            if self._ending and isinstance(exception, SIGTERMException):
                trainer.save_checkpoint(self.checkpoint, weights_only=False)  # the optimizer too
                say(f"interrupted after step {trainer.global_step}, saved {self.checkpoint}")
        finally:
            hand_back(self._previous_handlers)

    def _end_if_signalled(self, trainer: Trainer) -> None:
        signalled = 0 if self.received is None else int(self.received)
        if trainer.world_size > 1:
            latest = torch.tensor(signalled, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(latest, torch.distributed.ReduceOp.MAX)
            signalled = int(latest)
        if signalled:
            self.received = signal.Signals(signalled)
            self._tell_lightning(trainer, True)

    def _tell_lightning(self, trainer: Trainer, end: bool) -> None:
        """Set the flag of Lightning's own handler, at which its loops stop where they are consistent.

        In a version without this private flag the run stops here without a checkpoint, and resumes from its last one.
        """
        connector: Any = getattr(trainer, "_signal_connector", None)
        if hasattr(connector, "received_sigterm"):
            connector.received_sigterm = self._ending = end
        elif end:
            raise SIGTERMException

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return  # a data loading worker forked with this handler; its parent needs it until the step is done
        if signum == signal.SIGHUP:
            leave_closed_terminal()
        if signum == signal.SIGINT:
            if self.received == signal.SIGINT:
                hand_back(self._previous_handlers)
                raise KeyboardInterrupt
            say("\nCtrl-C: stopping after this step (press again to stop now)")
        self.received = signal.Signals(signum)


@contextmanager
def ending(run: Run) -> Iterator[None]:
    """Say how to resume a run that a signal or an error ends, and exit with the usual code of the signal.

    Raises:
        SystemExit: with 128 + n after signal n.
    """
    can_be_resumed = RunFolder(run.config.run_dir).checkpoint().exists
    advice = f"continue with: python train.py resume={run.config.run_dir}"
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        say(advice if can_be_resumed() else "interrupted before the first checkpoint")
        # Lightning raises its own SystemExit for Ctrl-C and SIGTERM, for SIGTERM with exit code 0.
        interrupt = run.callback(CheckpointOnInterrupt)
        if interrupt is not None and interrupt.received is not None:
            sys.exit(128 + interrupt.received)
        raise
    except Exception as error:
        if can_be_resumed():
            add_note(error, advice)
        raise
