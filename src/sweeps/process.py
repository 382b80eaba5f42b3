"""The process of a cell: never two of one cell at a time, and none that outlives the program that started it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from src.runs.folder import ENVIRONMENT_VARIABLE
from src.sweeps.cell import Cell
from src.sweeps.command import for_people
from src.utils.processes import available_cpus

CHILD = Path(__file__).with_name("child.py")
# Of the process that starts the cells, and not theirs.
FOREIGN_VARIABLES = (ENVIRONMENT_VARIABLE, "WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class CellProcess:
    """A running cell.

    Attributes:
        cell: which.
        resumed: whether it went on from a checkpoint.
        started: `time.monotonic` at its start.
    """

    def __init__(self, cell: Cell, process: subprocess.Popen[bytes], resumed: bool) -> None:
        self.cell = cell
        self.resumed = resumed
        self.started = time.monotonic()
        self._process = process

    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        return self._process.poll()

    def seconds(self) -> float:
        """Return how long it has run."""
        return time.monotonic() - self.started

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the process and to those that it started; train.py saves a checkpoint on SIGTERM."""
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.killpg(self._process.pid, signum)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; return whether it came in time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self._process.poll() is not None


def start(cell: Cell, environment: Mapping[str, str]) -> CellProcess | None:
    """Start a cell or go on with it; return None if another process runs it now, or has finished it.

    The lock is the open file itself: the child inherits it and holds it until it ends, however it ends and whatever
    becomes of this process.
    """
    cell.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(cell.lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if cell.is_finished():
            return None
        return _start_locked(cell, environment, lock)
    except BlockingIOError:
        return None
    finally:
        os.close(lock)


def _start_locked(cell: Cell, environment: Mapping[str, str], lock: int) -> CellProcess:
    resumed = cell.can_be_resumed()
    if not resumed:
        # Whatever lies there was left before the first checkpoint.
        shutil.rmtree(cell.folder, ignore_errors=True)
    command = cell.resume_command() if resumed else cell.command()
    with cell.log.open("ab") as log:
        log.write(f"$ {for_people(command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [sys.executable, str(CHILD), str(os.getpid()), *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            # A Ctrl-C at the terminal is for reproduce.py, which asks the cells to stop.
            start_new_session=True,
        )
    return CellProcess(cell, process, resumed)


def cell_environment(jobs: int) -> dict[str, str]:
    """Return the environment of the cells: this Python's programs first, and the cores shared out among the jobs."""
    environment = {key: value for key, value in os.environ.items() if key not in FOREIGN_VARIABLES}
    # W&B's command lines say `python`.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    for variable in THREAD_VARIABLES:
        environment.setdefault(variable, str(max(1, available_cpus() // jobs)))
    # A log is read while it grows.
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last non-empty lines of a log."""
    if not path.is_file():
        return []
    with path.open(errors="replace") as file:
        return list(deque((line.rstrip() for line in file if line.strip()), count))
