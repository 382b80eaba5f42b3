"""The state of a sweep's cells, for a person at a terminal and for the reader of a log."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from src.sweeps.process import last_lines
from src.sweeps.runner import Attempt, State

DONE = (State.FINISHED, State.SKIPPED)
STYLES = {State.FAILED: "red", State.RUNNING: "yellow", State.FINISHED: "green"}
# The table at a terminal shows so many cells of a long sweep.
MAX_ROWS = 30


class SweepLines:
    """Prints a line when a cell starts or ends, and every ``interval_s`` the last log line of each running cell."""

    def __init__(self, total: int, jobs: int, console: Console, interval_s: float = 60.0) -> None:
        self.total, self.jobs = total, jobs
        self.attempts: list[Attempt] = []
        self._console, self._interval_s = console, interval_s
        self._printed = time.monotonic()

    def __enter__(self) -> SweepLines:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def changed(self, attempt: Attempt) -> None:
        """Show that an attempt has a new state."""
        if attempt not in self.attempts:
            self.attempts.append(attempt)
        took = f" after {duration(attempt.seconds)}" if attempt.seconds else ""
        again = " again" if attempt.state is State.RUNNING and attempt.resumed else ""
        self._print(f"{attempt.cell.name}: {attempt.state.value}{again}{took} ({self.text()})")

    def tick(self, attempts: list[Attempt]) -> None:
        """Show that time passes."""
        if time.monotonic() - self._printed >= self._interval_s:
            for attempt in attempts:
                if attempt.state is State.RUNNING:
                    self._print(f"{attempt.cell.name}: {' '.join(last_lines(attempt.cell.log, 1))}")

    def seconds_left(self) -> float | None:
        """Return an estimate from the mean time of the cells finished in this session; None before the first one."""
        times = [a.seconds for a in self.attempts if a.state is State.FINISHED and not a.resumed]
        if not times:
            return None
        mean = sum(times) / len(times)
        running = [attempt.seconds for attempt in self.attempts if attempt.state is State.RUNNING]
        waiting = self.total - sum(attempt.state is not State.WAITING for attempt in self.attempts)
        return (waiting * mean + sum(max(0.0, mean - seconds) for seconds in running)) / self.jobs

    def text(self) -> str:
        """Return for example ``"5 of 12 done, 1 failed, about 8 min left"``."""
        done, failed = (sum(attempt.state in states for attempt in self.attempts) for states in (DONE, (State.FAILED,)))
        left = self.seconds_left()
        parts = [f"{done} of {self.total} done"]
        parts += [f"{failed} failed"] if failed else []
        parts += [f"about {duration(left)} left"] if left is not None and done + failed < self.total else []
        return ", ".join(parts)

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False)
        self._printed = time.monotonic()


class SweepTable(SweepLines):
    """Shows a table of the cells that redraws itself."""

    def __enter__(self) -> SweepTable:
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=2)
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.__exit__(None, None, None)

    def _print(self, line: str) -> None:
        """Do nothing: the table redraws itself."""

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False, expand=True)
        for column in ("cell", "state", "time"):
            table.add_column(column, no_wrap=True)
        # It gets the rest of the width, however long the line.
        table.add_column("last line of the log", overflow="ellipsis", no_wrap=True, ratio=1)
        # The latest cells, and all earlier ones that did not go well.
        latest = self.attempts[-MAX_ROWS:]
        for attempt in list(self.attempts):
            if attempt in latest or attempt.state not in DONE:
                said = last_lines(attempt.cell.log, 1) if attempt.state in (State.RUNNING, State.FAILED) else []
                state = Text(attempt.state.value, style=STYLES.get(attempt.state, ""))
                took = duration(attempt.seconds) if attempt.seconds else ""
                table.add_row(attempt.cell.name, state, took, " ".join(said))
        return Group(table, Text(self.text(), style="bold"))


def progress(total: int, jobs: int, console: Console | None = None) -> SweepLines:
    """Return a table at a terminal, else lines; ``console`` is stdout unless given."""
    console = console or Console(highlight=False)
    return (SweepTable if console.is_terminal else SweepLines)(total, jobs, console)


def duration(seconds: float) -> str:
    """Return for example ``"42 s"``, ``"3.5 min"`` or ``"2.1 h"``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
