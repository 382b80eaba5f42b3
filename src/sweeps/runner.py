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
class Attempt:
    """What this session does with a cell: its state, its running time, its exit code, and whether it was resumed."""

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
        environment: of their processes.
        fail_fast: whether a failure stops all others.
        on_change: called with an attempt when its state changes.
        on_tick: called with all attempts in between.
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
        on_change: Callable[[Attempt], None] = lambda attempt: None,
        on_tick: Callable[[list[Attempt]], None] = lambda attempts: None,
        poll_s: float = 0.2,
        grace_s: float = 120.0,
    ) -> None:
        self.attempts: list[Attempt] = []
        self._cells = cells
        self._jobs = jobs
        self._environment = environment
        self._fail_fast = fail_fast
        self._on_change = on_change
        self._on_tick = on_tick
        self._poll_s = poll_s
        self._grace_s = grace_s
        self._running: dict[Attempt, CellProcess] = {}
        # When the cells that other processes run were last checked.
        self._elsewhere: dict[Attempt, float] = {}

    def run(self) -> list[Attempt]:
        """Run all cells; return their attempts.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the running cells have saved their checkpoints.
        """
        try:
            exhausted = False
            while True:
                self._check_processes()
                if self._fail_fast and any(attempt.state is State.FAILED for attempt in self.attempts):
                    break
                self._retry()
                while not exhausted and len(self._running) < self._jobs:
                    cell = next(self._cells, None)
                    exhausted = cell is None
                    if cell is not None:
                        self.attempts.append(Attempt(cell))
                        self._start(self.attempts[-1])
                if exhausted and not self._running and not self._elsewhere:
                    break
                self._on_tick(self.attempts)
                time.sleep(self._poll_s)
        finally:
            self._stop_all()
        return self.attempts

    def _start(self, attempt: Attempt) -> None:
        self._elsewhere.pop(attempt, None)
        if attempt.cell.is_finished():
            self._set(attempt, State.SKIPPED)
            return
        process = start(attempt.cell, self._environment)
        if process is None:
            self._elsewhere[attempt] = time.monotonic()
            self._set(attempt, State.ELSEWHERE)
            return
        self._running[attempt] = process
        attempt.resumed = process.resumed
        self._set(attempt, State.RUNNING)

    def _set(self, attempt: Attempt, state: State) -> None:
        if attempt.state is not state:
            attempt.state = state
            self._on_change(attempt)

    def _retry(self) -> None:
        """Check the cells that other processes run again: they may be finished, or free after a crash."""
        for attempt, looked in list(self._elsewhere.items()):
            if len(self._running) < self._jobs and time.monotonic() - looked > RETRY_S:
                self._start(attempt)

    def _check_processes(self) -> None:
        for attempt, process in list(self._running.items()):
            attempt.seconds, attempt.exit_code = process.seconds(), process.exit_code()
            if attempt.exit_code is not None:
                del self._running[attempt]
                finished = attempt.exit_code == 0 and attempt.cell.is_finished()
                self._set(attempt, State.FINISHED if finished else State.FAILED)

    def _stop_all(self) -> None:
        """Let the cells save their checkpoints; a second Ctrl-C kills them."""
        for process in self._running.values():
            process.stop()
        deadline = time.monotonic() + self._grace_s
        try:
            for process in self._running.values():
                process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for attempt, process in self._running.items():
                process.stop(signal.SIGKILL)
                process.wait(1.0)
                attempt.seconds, attempt.exit_code = process.seconds(), process.exit_code()
                self._set(attempt, State.FINISHED if attempt.cell.is_finished() else State.STOPPED)
            self._running.clear()
