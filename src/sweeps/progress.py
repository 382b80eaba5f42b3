"""How the cells of a sweep stand, for a person at a terminal and for the one who reads the log afterwards."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from src.sweeps.process import last_lines
from src.sweeps.runner import Entry, State

DONE = (State.FINISHED, State.SKIPPED)
# What the table at a terminal shows of a long sweep.
MAX_ROWS = 30


class Progress(Protocol):
    """Shows what a Runner tells."""

    def __enter__(self) -> Progress: ...

    def __exit__(self, *exception: object) -> None: ...

    def changed(self, entry: Entry) -> None:
        """Show that an entry has another state."""

    def tick(self, entries: list[Entry]) -> None:
        """Show time passing."""


def progress(total: int, jobs: int, console: Console | None = None) -> Progress:
    """Return a table that redraws itself on a terminal, else plain lines.

    Args:
        total: number of cells.
        jobs: how many run at once.
        console: where to; None: stdout.
    """
    console = console or Console(highlight=False)
    estimate = Estimate(total, jobs)
    return LiveProgress(estimate, console) if console.is_terminal else LineProgress(estimate, console)


class Estimate:
    """How many of ``total`` cells are done, and how long the others will take, ``jobs`` at a time."""

    def __init__(self, total: int, jobs: int) -> None:
        self.total = total
        self.jobs = jobs

    def seconds_left(self, entries: list[Entry]) -> float | None:
        """Return the mean time of the cells finished in this session for each that is left; None before the first."""
        times = [entry.seconds for entry in entries if entry.state is State.FINISHED and not entry.resumed]
        if not times:
            return None
        mean = sum(times) / len(times)
        running = [entry.seconds for entry in entries if entry.state is State.RUNNING]
        waiting = self.total - sum(entry.state is not State.WAITING for entry in entries)
        return (waiting * mean + sum(max(0.0, mean - seconds) for seconds in running)) / self.jobs

    def text(self, entries: list[Entry]) -> str:
        """Return for example ``"5 of 12 done, 1 failed, about 8 min left"``."""
        done, failed = (sum(entry.state in states for entry in entries) for states in (DONE, (State.FAILED,)))
        left = self.seconds_left(entries)
        parts = [f"{done} of {self.total} done"]
        parts += [f"{failed} failed"] if failed else []
        parts += [f"about {duration(left)} left"] if left is not None and done + failed < self.total else []
        return ", ".join(parts)


class LineProgress:
    """Prints a line when a cell starts or ends, and every ``interval_s`` seconds what the running ones last said."""

    def __init__(self, estimate: Estimate, console: Console, interval_s: float = 60.0) -> None:
        self._estimate = estimate
        self._console = console
        self._interval_s = interval_s
        self._entries: list[Entry] = []
        self._printed = time.monotonic()

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def changed(self, entry: Entry) -> None:
        """Print the entry."""
        if entry not in self._entries:
            self._entries.append(entry)
        took = f" after {duration(entry.seconds)}" if entry.seconds else ""
        again = " again" if entry.state is State.RUNNING and entry.resumed else ""
        self._print(f"{entry.cell.name}: {entry.state.value}{again}{took} ({self._estimate.text(self._entries)})")

    def tick(self, entries: list[Entry]) -> None:
        """Print the last line of each running cell's log, now and then."""
        if time.monotonic() - self._printed < self._interval_s:
            return
        for entry in entries:
            if entry.state is State.RUNNING:
                self._print(f"{entry.cell.name}: {' '.join(last_lines(entry.cell.log, 1))}")

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False)
        self._printed = time.monotonic()


class LiveProgress:
    """A table of the cells that redraws itself."""

    def __init__(self, estimate: Estimate, console: Console) -> None:
        self._estimate = estimate
        self._live = Live(console=console, refresh_per_second=2, transient=False)
        self._entries: list[Entry] = []

    def __enter__(self) -> LiveProgress:
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._draw()
        self._live.__exit__(None, None, None)

    def changed(self, entry: Entry) -> None:
        """Redraw."""
        if entry not in self._entries:
            self._entries.append(entry)
        self._draw()

    def tick(self, entries: list[Entry]) -> None:
        """Redraw."""
        self._draw()

    def _draw(self) -> None:
        table = Table(box=None, pad_edge=False, expand=True)
        for column in ("cell", "state", "time"):
            table.add_column(column, no_wrap=True)
        # What is left of the width, however long the line.
        table.add_column("last line of its log", overflow="ellipsis", no_wrap=True, ratio=1)
        # The latest ones, and whatever did not go well.
        hidden = [entry for entry in self._entries[:-MAX_ROWS] if entry.state in DONE]
        for entry in self._entries:
            if entry not in hidden:
                table.add_row(*_row(entry))
        self._live.update(Group(table, Text(self._estimate.text(self._entries), style="bold")))


def _row(entry: Entry) -> tuple[str, Text, str, str]:
    styles = {State.FAILED: "red", State.RUNNING: "yellow", State.FINISHED: "green"}
    said = last_lines(entry.cell.log, 1) if entry.state in (State.RUNNING, State.FAILED) else []
    state = Text(entry.state.value, style=styles.get(entry.state, ""))
    return entry.cell.name, state, duration(entry.seconds) if entry.seconds else "", " ".join(said)


def duration(seconds: float) -> str:
    """Return for example ``"42 s"``, ``"3.5 min"`` or ``"2.1 h"``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
