"""SIGTERM and Ctrl-C end a process even if it hangs."""

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

# The longest wait after a second Ctrl-C.
SECOND_CTRL_C_S = 5.0


class EndHungRun(pl.Callback):
    """Ends a process of a distributed run that a signal asked to end and that no longer makes progress.

    A process that waits for another one in a collective operation runs none of Python's signal handlers. If the other
    one never comes, no signal that can be caught would end it. So a thread watches for signals. If no batch is done
    within ``patience_s`` after a signal, the thread prints where the process hangs, and ends it together with the
    processes that it has started. Nothing is saved then: the run continues from its last checkpoint. A second Ctrl-C
    shortens the wait. A run of one process waits for nobody and is not watched.

    Outside of training there is nothing to save, and SIGTERM ends all processes at once.

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
        """Begin to watch. Only the main thread receives signals."""
        if trainer.world_size > 1 and self._stop is None and threading.current_thread() is threading.main_thread():
            heard, self._stop = socket.socketpair()
            self._stop.setblocking(False)
            signal.set_wakeup_fd(self._stop.fileno(), warn_on_full_buffer=False)
            _watchers.append(self)
            threading.Thread(target=self._watch, args=(heard, trainer), daemon=True, name="hung-run").start()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop watching."""
        if self._stop is not None:
            signal.set_wakeup_fd(-1)
            _watchers.remove(self)
            self._stop.close()  # which ends the thread
            self._stop = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Watch until the process ends: the checkpoint of an interrupted run waits for the other processes too."""
        self._note_progress()
        # Registered last, called first: loggers may take their time afterwards.
        atexit.register(self.stop)

    def _take_over_sigterm(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace Lightning's handler, which waits for the other processes, whatever these are doing.

        During training `CheckpointOnInterrupt` has replaced it already. Lightning restores the handlers itself.
        """
        handler = type(signal.getsignal(signal.SIGTERM))
        if self._stop is None or not handler.__module__.startswith("pytorch_lightning"):
            return

        def end(signum: int, frame: FrameType | None) -> None:
            for process in started_processes(trainer):
                process.send_signal(signum)
            raise SIGTERMException

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
        received: list[int] = []
        with heard:
            while True:
                hurried = received.count(signal.SIGINT) > 1
                patience_s = min(self.patience_s, SECOND_CTRL_C_S) if hurried else self.patience_s
                left_s = self._progress + patience_s - time.monotonic() if received else None
                if left_s is not None and left_s <= 0:
                    return self._end(trainer, signal.Signals(received[0]))
                if select.select([heard], [], [], left_s)[0]:
                    numbers = heard.recv(64)
                    if not numbers:
                        return None
                    new = [number for number in numbers if number in SIGNALS]
                    if new:
                        received += new
                        self._note_progress()

    def _end(self, trainer: pl.Trainer, received: signal.Signals) -> None:
        frames = traceback.extract_stack(sys._current_frames()[threading.main_thread().ident or 0])
        where = "".join(traceback.format_list([f for f in frames if "/torch/" not in f.filename][-4:]))
        print(
            f"process {trainer.global_rank} has made no progress since {received.name} and is ended; the run can be "
            f"resumed from its last checkpoint. The process hangs here:\n{where}",
            file=sys.stderr,
            flush=True,
        )
        for process in started_processes(trainer):
            process.kill()
        os._exit(128 + received)


_watchers: list[EndHungRun] = []


def _forget() -> None:
    # A forked process, such as a DataLoader's worker, would report its own signals to its parent.
    if _watchers:
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget)
