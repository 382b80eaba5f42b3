"""A search goes on after whatever became of its trials, of the process that wrote them and of their file."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from src.runs.summary import write_summary
from src.sweeps.cell import Cell
from src.sweeps.identity import identity_of_arguments
from src.sweeps.runner import Attempt, State
from src.sweeps.search import Search
from src.sweeps.sweep import Objective, Sweep
from src.utils.files import write_text
from src.utils.reading import FileError
from tests.sweeps.programs import COMMAND

ROOT = Path(__file__).resolve().parents[2]
SWEEP = Sweep(
    "train.py", "bayes", {n: {"min": 0.0, "max": 1.0} for n in "xy"}, COMMAND, Objective("loss"), None, ("x", "y")
)


def search(folder: Path, count: int) -> Search:
    return Search(SWEEP, count, [], identity_of_arguments, folder)


def finish(cell: Cell, loss: float) -> Attempt:
    """As train.py does, whose summary has null for what is not finite."""
    value = loss if math.isfinite(loss) else None
    write_summary({"metrics": {"loss": value}, "run_dir": str(cell.folder)})
    return Attempt(cell, State.FINISHED)


def complete(folder: Path, count: int, loss: float = 0.5) -> list[float]:
    """Run what is missing of a search; return its values."""
    found = search(folder, count)
    for cell in found.cells():
        found.tell(Attempt(cell, State.SKIPPED) if cell.is_finished() else finish(cell, loss))
    return [value for value, _ in found.ranking()]


def journal_of_two(folder: Path) -> Path:
    assert complete(folder, 2) == [0.5, 0.5]
    return folder / "search.journal"


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_trial_that_diverged_has_failed_and_the_search_goes_on(loss: float, tmp_path: Path) -> None:
    complete(tmp_path, 2, loss=loss)
    assert complete(tmp_path, 4) == [0.5, 0.5]
    assert [trial.state.name for trial in search(tmp_path, 4).study.trials] == ["FAIL"] * 2 + ["COMPLETE"] * 2


def test_a_damaged_summary_is_named(tmp_path: Path) -> None:
    found = search(tmp_path, 1)
    attempt = finish(next(found.cells()), 1.0)
    for content in ("{", "{}", "[]", '{"metrics": []}'):
        attempt.cell.run.summary.write_text(content)
        with pytest.raises(FileError, match=re.escape(str(attempt.cell.run.summary))):
            found.tell(attempt)


def test_a_search_goes_on_from_wherever_its_journal_was_cut_off(tmp_path: Path) -> None:
    """What a kill leaves is a journal's first bytes."""
    whole = journal_of_two(tmp_path / "whole").read_bytes()
    ends = [match.end() for match in re.finditer(rb"\n", whole)]
    assert len(ends) > 6
    for number, length in enumerate([0, ends[2] + 20, *ends, *(end - 1 for end in ends)]):
        folder = tmp_path / str(number)
        write_text(folder / "search.journal", whole[:length].decode())
        assert complete(folder, 3) == [0.5, 0.5, 0.5], length
        assert complete(folder, 4) == [0.5] * 4, length


def test_a_process_that_was_killed_while_it_wrote_holds_no_lock(tmp_path: Path) -> None:
    script = """
        import os, pathlib, signal, sys
        from src.sweeps.identity import identity_of_arguments
        from src.sweeps.runner import Attempt, State
        from src.sweeps.search import Search
        from src.sweeps.sweep import Objective, Sweep

        sweep = Sweep("train.py", "random", {"x": {"min": 0.0, "max": 1.0}}, (), Objective("loss"), None, ("x",))
        search = Search(sweep, 3, [], identity_of_arguments, pathlib.Path("search"))
        if sys.argv[1] == "killed":
            os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
        for cell in search.cells():
            search.tell(Attempt(cell, State.FAILED))
        print([trial.state.name for trial in search.study.trials])
    """
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{textwrap.dedent(script)}"]
    killed = subprocess.run([*command, "killed"], cwd=tmp_path, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = subprocess.run([*command, "again"], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert again.stdout == f"{['FAIL'] * 4}\n", again.stderr  # the one that was cut off, and three


@pytest.mark.parametrize("damage", ["{{", "[]", "{}", "null", "\udcff", "1" * 5000, "[" * 100_000])
@pytest.mark.parametrize("position", [0, 2, -1])
def test_a_damaged_line_is_named_before_anything_is_written(damage: Any, position: int, tmp_path: Path) -> None:
    path = journal_of_two(tmp_path)
    lines = path.read_bytes().splitlines()
    lines[position] = damage.encode(errors="surrogateescape")
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    before = path.read_bytes()
    with pytest.raises(FileError, match=f"^expected the trials of a search.*, got {re.escape(repr(str(path)))}: "):
        search(tmp_path, 3)
    assert path.read_bytes() == before
