"""Run cells in parallel."""

import enum
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from src.sweeps.cell import Cell
from src.sweeps.process import CellProcess, start

# Seconds until a cell that another process runs is checked again.
RETRY_S = 2.0


class State(enum.Enum):
    """The state of a cell."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    SKIPPED = "finished before"
    ELSEWHERE = "runs elsewhere"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(eq=False)
class Entry:
    """A cell and its state; its running time and exit code in this session, and whether it was resumed."""

    cell: Cell
    state: State = State.WAITING
    seconds: float = 0.0
    resumed: bool = False
    exit_code: int | None = None


class Runner:
    """Runs cells, ``jobs`` at a time.

    Args:
        cells: the next one is drawn when fewer than ``jobs`` run.
        jobs: number of cells that run at a time.
        environment: the environment of their processes.
        fail_fast: whether a failure stops all others.
        on_change: called with an entry when its state changes.
        on_tick: called with all entries in between.
        poll_s: seconds between two checks of the processes.
        grace_s: seconds that a cell has to save its checkpoint before it is killed.
    """

    def __init__(
        self,
        cells: Iterator[Cell],
        jobs: int,
        environment: Mapping[str, str],
        *,
        fail_fast: bool = False,
        on_change: Callable[[Entry], None] = lambda entry: None,
        on_tick: Callable[[list[Entry]], None] = lambda entries: None,
        poll_s: float = 0.2,
        grace_s: float = 120.0,
    ) -> None:
        self.entries: list[Entry] = []
        self._cells = cells
        self._jobs = jobs
        self._environment = environment
        self._fail_fast = fail_fast
        self._on_change = on_change
        self._on_tick = on_tick
        self._poll_s = poll_s
        self._grace_s = grace_s
        self._running: dict[Entry, CellProcess] = {}
        # When the cells that other processes run were last checked.
        self._elsewhere: dict[Entry, float] = {}

    def run(self) -> list[Entry]:
        """Run all cells; return their entries.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the running cells have saved their checkpoints.
        """
        try:
            exhausted = False
            while True:
                self._check_processes()
                if self._fail_fast and any(entry.state is State.FAILED for entry in self.entries):
                    break
                self._retry()
                while not exhausted and len(self._running) < self._jobs:
                    exhausted = not self._start_next()
                if exhausted and not self._running and not self._elsewhere:
                    break
                self._on_tick(self.entries)
                time.sleep(self._poll_s)
        finally:
            self._stop_all()
        return self.entries

    def _start_next(self) -> bool:
        cell = next(self._cells, None)
        if cell is None:
            return False
        self.entries.append(Entry(cell))
        self._start(self.entries[-1])
        return True

    def _start(self, entry: Entry) -> None:
        self._elsewhere.pop(entry, None)
        if entry.cell.is_finished():
            self._set(entry, State.SKIPPED)
            return
        process = start(entry.cell, self._environment)
        if process is None:
            self._elsewhere[entry] = time.monotonic()
            self._set(entry, State.ELSEWHERE)
            return
        self._running[entry] = process
        entry.resumed = process.resumed
        self._set(entry, State.RUNNING)

    def _set(self, entry: Entry, state: State) -> None:
        if entry.state is not state:
            entry.state = state
            self._on_change(entry)

    def _retry(self) -> None:
        """Check the cells that other processes run again: they may be finished, or free after a crash."""
        for entry, looked in list(self._elsewhere.items()):
            if len(self._running) < self._jobs and time.monotonic() - looked > RETRY_S:
                self._start(entry)

    def _check_processes(self) -> None:
        for entry, process in list(self._running.items()):
            entry.seconds, entry.exit_code = process.seconds(), process.exit_code()
            if entry.exit_code is not None:
                del self._running[entry]
                finished = entry.exit_code == 0 and entry.cell.is_finished()
                self._set(entry, State.FINISHED if finished else State.FAILED)

    def _stop_all(self) -> None:
        """Let the cells save their checkpoints; a second Ctrl-C kills them."""
        for process in self._running.values():
            process.stop()
        deadline = time.monotonic() + self._grace_s
        try:
            for process in self._running.values():
                process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for entry, process in self._running.items():
                process.stop(signal.SIGKILL)
                process.wait(1.0)
                entry.seconds, entry.exit_code = process.seconds(), process.exit_code()
                self._set(entry, State.FINISHED if entry.cell.is_finished() else State.STOPPED)
            self._running.clear()
