"""What a sweep shows of itself."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from src.sweeps.progress import SweepLines, SweepTable, duration, progress
from src.sweeps.runner import Attempt, State
from tests.sweeps.programs import cells_of, sweep_of


@pytest.fixture
def attempts(tmp_path: Path) -> list[Attempt]:
    cells = cells_of(sweep_of("train.py", x=[1, 2, 3, 4]), tmp_path)
    cells[1].log.write_text("step 1\nstep 2\n")
    return [
        Attempt(cells[0], State.FINISHED, 100.0),
        Attempt(cells[1], State.RUNNING, 40.0, resumed=True),
        Attempt(cells[2], State.FAILED, 5.0, exit_code=1),
        Attempt(cells[3], State.SKIPPED),
    ]


def console(terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=100, force_terminal=terminal, color_system=None), text


def test_the_time_left_is_that_of_the_cells_left(attempts: list[Attempt]) -> None:
    def told(total: int, jobs: int, attempts: list[Attempt]) -> SweepLines:
        shown = SweepLines(total, jobs, console(terminal=False)[0])
        for attempt in attempts:
            shown.changed(attempt)
        return shown

    # Two have not started, one has 60 of 100 seconds left, two run at a time.
    assert told(6, 2, attempts).seconds_left() == pytest.approx((200 + 60) / 2)
    assert told(6, 2, attempts).text() == "2 of 6 done, 1 failed, about 2.2 min left"
    assert told(2, 1, attempts[1:]).seconds_left() is None
    assert told(1, 1, attempts[:1]).text() == "1 of 1 done"


def test_lines_for_a_log(attempts: list[Attempt]) -> None:
    target, text = console(terminal=False)
    with progress(6, 2, target) as shown:
        assert type(shown) is SweepLines
        for attempt in attempts:
            shown.changed(attempt)
        shown.tick(attempts)
    assert text.getvalue().splitlines() == [
        "x-1: finished after 1.7 min (1 of 6 done, about 4.2 min left)",
        "x-2: running again after 40 s (1 of 6 done, about 3.8 min left)",
        "x-3: failed after 5 s (1 of 6 done, 1 failed, about 3.0 min left)",
        "x-4: finished before (2 of 6 done, 1 failed, about 2.2 min left)",
    ]


def test_a_long_run_says_what_its_log_says(attempts: list[Attempt]) -> None:
    target, text = console(terminal=False)
    with SweepLines(6, 2, target, interval_s=0.0) as shown:
        shown.tick(attempts)
    assert text.getvalue() == "x-2: step 2\n"


def test_a_table_for_a_terminal(attempts: list[Attempt]) -> None:
    target, text = console(terminal=True)
    with progress(6, 2, target) as shown:
        assert isinstance(shown, SweepTable)
        for attempt in attempts:
            shown.changed(attempt)
    rows = [line.split() for line in text.getvalue().splitlines()]
    assert ["x-2", "running", "40", "s", "step", "2"] in rows and ["x-4", "finished", "before"] in rows
    assert "2 of 6 done, 1 failed" in text.getvalue()


def test_a_long_line_of_a_log_takes_no_room_from_the_others(attempts: list[Attempt]) -> None:
    attempts[1].cell.log.write_text("word " * 100)
    target, text = console(terminal=True)
    with progress(6, 2, target) as shown:
        shown.changed(attempts[1])
    (row, *_) = [line for line in text.getvalue().splitlines() if "x-2" in line]
    assert row.split()[:5] == ["x-2", "running", "40", "s", "word"] and row.rstrip().endswith("…") and len(row) <= 100


@pytest.mark.parametrize(("seconds", "text"), [(42.4, "42 s"), (210, "3.5 min"), (7560, "2.1 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
