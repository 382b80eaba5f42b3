"""Callbacks that break a run at a chosen place."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from src.runs.folder import RunFolder
from src.utils.files import atomic_write

ERRORS = {"KeyboardInterrupt": KeyboardInterrupt, "OSError": OSError}


class Fault(pl.Callback):
    """Raises an error in a hook after a number of optimizer steps.

    Args:
        where: a hook (of a validation or test: at its second batch), or "optimizer": right after the weights' update.
        step: the number of optimizer steps; -1: never.
        error: a key of `ERRORS`.
    """

    def __init__(self, where: str, step: int, error: str) -> None:
        self.where, self.step, self.error = where, step, ERRORS[error]
        if where != "optimizer":
            setattr(self, where, self._raise_if_due)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.trainer = trainer

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.where == "optimizer":
            trainer.optimizers[0].register_step_post_hook(self._raise_if_due)

    def _raise_if_due(self, *arguments: Any) -> None:
        second = not self.where.endswith(("validation_batch_end", "test_batch_end")) or arguments[4] == 1
        if second and self.trainer.global_step == self.step and not self.trainer.sanity_checking:
            raise self.error("a fault")


class InfiniteGradient(pl.Callback):
    """Makes the gradients of one step infinite."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == self.step:
            for parameter in pl_module.parameters():
                parameter.grad = torch.full_like(parameter, float("inf"))


class SignalInTest(pl.Callback):
    """Sends this process a signal after the first batch of the test, unless it is 0."""

    def __init__(self, signum: int) -> None:
        self.signum = signum

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0 and self.signum:
            signal.raise_signal(signal.Signals(self.signum))


class SignalWhileSaving(pl.Callback):
    """Sends this process SIGTERM while it saves a checkpoint because of a signal."""

    def on_save_checkpoint(self, trainer: pl.Trainer, *unused: Any) -> None:
        if trainer.interrupted:
            signal.raise_signal(signal.SIGTERM)


class KillAfterCheckpoint(Checkpoint):
    """Kills this process after a step, or after its epoch, as soon as last.ckpt has been written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def _kill_if_due(self, trainer: pl.Trainer) -> None:
        path = RunFolder(trainer.default_root_dir).checkpoint()
        if trainer.global_step == self.step and torch.load(path, weights_only=True)["global_step"] == self.step:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_end(self, trainer: pl.Trainer, *unused: Any) -> None:
        if not trainer.is_last_batch:
            self._kill_if_due(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._kill_if_due(trainer)


@contextmanager
def full_disk_for_best(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Act as `atomic_write` on a disk that becomes full while best.ckpt is written."""
    with atomic_write(path) as file:
        if Path(path).name == "best.ckpt":
            write, room = file.write, [2000]

            def write_or_fail(data: Any) -> int:
                room[0] -= len(data)
                if room[0] < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return write(data)

            yield _Written(file, write_or_fail)  # type: ignore[misc]
        else:
            yield file


class _Written:
    def __init__(self, file: IO[bytes], write: Any) -> None:
        self._file, self.write = file, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
