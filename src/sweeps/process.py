"""The process of a cell: at most one at a time, and none survives the program that started it."""

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

from src.runs.folder import RUN_DIR_VARIABLE
from src.sweeps.cell import Cell
from src.sweeps.command import for_people
from src.utils.processes import available_cpus

CHILD = Path(__file__).with_name("child.py")
# These belong to the process that starts the cells, not to the cells.
FOREIGN_VARIABLES = (RUN_DIR_VARIABLE, "WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class CellProcess:
    """The process of a running cell; ``resumed`` tells whether it started from a checkpoint."""

    def __init__(self, process: subprocess.Popen[bytes], resumed: bool) -> None:
        self.resumed = resumed
        self._process = process
        self._started = time.monotonic()

    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        return self._process.poll()

    def seconds(self) -> float:
        """Return how long it has run."""
        return time.monotonic() - self._started

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the process and its children; train.py saves a checkpoint on SIGTERM."""
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.killpg(self._process.pid, signum)

    def wait(self, timeout_s: float) -> bool:
        """Wait until the process ends; return whether it did in time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self._process.poll() is not None


def start(cell: Cell, environment: Mapping[str, str]) -> CellProcess | None:
    """Start or resume a cell; return None if another process runs it now or has finished it.

    The lock belongs to the open file: the child inherits it and holds it until it ends, even if this process is killed.
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
        # Files from before the first checkpoint are of no use.
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
            # A Ctrl-C at the terminal must reach reproduce.py only, which stops the cells itself.
            start_new_session=True,
        )
    return CellProcess(process, resumed)


def cell_environment(jobs: int) -> dict[str, str]:
    """Return the environment of the cells: this Python first in PATH, and the cores divided among the jobs."""
    environment = {key: value for key, value in os.environ.items() if key not in FOREIGN_VARIABLES}
    # W&B's command lines call `python`.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    for variable in THREAD_VARIABLES:
        environment.setdefault(variable, str(max(1, available_cpus() // jobs)))
    # So that the log can be followed.
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last non-empty lines of a log."""
    if not path.is_file():
        return []
    with path.open(errors="replace") as file:
        return list(deque((line.rstrip() for line in file if line.strip()), count))
