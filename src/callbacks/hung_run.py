"""SIGTERM and Ctrl-C end a process that hangs, too."""

from __future__ import annotations

import atexit
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from src.utils.processes import started_processes
from src.utils.signals import SIGNALS

# How long a person who presses Ctrl-C again has to wait at most.
SECOND_CTRL_C_S = 5.0


class EndHungRun(pl.Callback):
    """Ends a process of several that was asked to end by a signal and makes no progress any more.

    A process that waits for another one in a collective operation runs none of Python's signal handlers: where the
    other one never comes, no signal that can be caught would end it. So a thread watches for signals. When one has
    come, and then for ``patience_s`` no batch is done, it says where the process hangs, and ends it with the processes
    that it has started. Nothing is saved then: the run goes on from its last checkpoint. A second Ctrl-C shortens the
    wait. A run of one process waits for nobody and is not watched.

    Outside of training, where there is nothing to save, SIGTERM ends all processes at once.

    Args:
        patience_s: longer than a batch takes, in seconds.

    Raises:
        ValueError: if it is not positive.
    """

    def __init__(self, patience_s: float = 60.0) -> None:
        if not patience_s > 0:
            raise ValueError(f"expected a positive callbacks.hung_run.patience_s, got {patience_s}")
        self.patience_s = patience_s
        self._progress = 0.0
        self._stop: socket.socket | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin to watch."""
        # Only the main thread hears of signals.
        if trainer.world_size > 1 and self._stop is None and threading.current_thread() is threading.main_thread():
            heard, self._stop = socket.socketpair()
            self._stop.setblocking(False)
            signal.set_wakeup_fd(self._stop.fileno(), warn_on_full_buffer=False)
            _watchers.append(self)
            threading.Thread(target=self._watch, args=(heard, trainer), daemon=True, name="hung-run").start()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Watch no longer."""
        self.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Watch until the process ends: the checkpoint of an interrupted run waits for the others too."""
        self._note_progress()
        # The last to be registered is the first to be called: trackers may take their time then.
        atexit.register(self.stop)

    def stop(self) -> None:
        """Hand the signals back."""
        if self._stop is not None:
            signal.set_wakeup_fd(-1)
            _watchers.remove(self)
            self._stop.close()  # which ends the thread
            self._stop = None

    def _take_over_sigterm(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stand in for Lightning's handler, which waits in the middle of whatever the processes are at for the others.

        While it trains, `CheckpointOnInterrupt` has taken over.
        """
        handler = type(signal.getsignal(signal.SIGTERM))
        if self._stop is None or not handler.__module__.startswith("pytorch_lightning"):
            return

        def end(signum: int, frame: FrameType | None) -> None:
            for process in started_processes(trainer):
                process.send_signal(signum)
            raise SIGTERMException

        # Lightning hands the signals back itself.
        signal.signal(signal.SIGTERM, end)

    on_sanity_check_start: Any = _take_over_sigterm
    on_validation_start: Any = _take_over_sigterm
    on_test_start: Any = _take_over_sigterm
    on_predict_start: Any = _take_over_sigterm

    def _note_progress(self, *unused: Any) -> None:
        self._progress = time.monotonic()

    on_train_batch_end: Any = _note_progress
    on_train_epoch_end: Any = _note_progress
    on_validation_batch_end: Any = _note_progress
    on_test_batch_end: Any = _note_progress
    on_predict_batch_end: Any = _note_progress

    def _watch(self, heard: socket.socket, trainer: pl.Trainer) -> None:
        received: signal.Signals | None = None
        patience, num_ctrl_c = self.patience_s, 0
        with heard:
            while True:
                left = None if received is None else self._progress + patience - time.monotonic()
                if left is not None and left <= 0:
                    assert received is not None
                    return self._end(trainer, received)
                if not select.select([heard], [], [], left)[0]:
                    continue
                numbers = heard.recv(64)
                if not numbers:
                    return None
                for number in numbers:
                    if number in SIGNALS:
                        received = received or signal.Signals(number)
                        self._progress = time.monotonic()
                        num_ctrl_c += number == signal.SIGINT
                if num_ctrl_c > 1:
                    patience = min(patience, SECOND_CTRL_C_S)

    def _end(self, trainer: pl.Trainer, received: signal.Signals) -> None:
        frames = traceback.extract_stack(sys._current_frames()[threading.main_thread().ident or 0])
        where = traceback.format_list([f for f in frames if "/torch/" not in f.filename][-4:])
        message = (
            f"process {trainer.global_rank} makes no progress since {received.name}, and is ended; the run goes on "
            f"from its last checkpoint. It hangs here:\n{''.join(where)}"
        )
        print(message, file=sys.stderr, flush=True)
        for process in started_processes(trainer):
            process.kill()
        os._exit(128 + received)


_watchers: list[EndHungRun] = []


def _forget() -> None:
    # A forked process, as a DataLoader's worker, would tell the parent of its own signals.
    if _watchers:
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
