"""A table whose prediction is interrupted."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from src.runs.predictions.jobs import Job, PredictionPlan
from src.runs.predictions.table_file import TableFile

VALUES = {"a": ["first", 0.1], "b": ["second", 1 / 3], "c": ["third", float("-inf")]}


def plan_of(folder: Path, asked: list[str], stops_at: str = "") -> PredictionPlan:
    """Return the plan of a table; it notes in ``asked`` which rows it works out."""
    table = TableFile(folder / "table.csv", ["name", "value"])

    def work(name: str) -> None:
        asked.append(name)
        if name == stops_at:
            raise KeyboardInterrupt
        table.add(name, VALUES[name])

    return PredictionPlan("rows", [Job((), (), partial(work, name), name) for name in VALUES], table)


def test_an_interrupted_table_goes_on_after_its_last_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        plan_of(tmp_path, [], stops_at="c").run(overwrite=False)
    plan = plan_of(tmp_path, asked := [])
    assert plan.is_started() and not (tmp_path / "table.csv").exists()
    assert plan.run(overwrite=False) == 1 and asked == ["c"]
    assert "2 of 3 are there already" in capsys.readouterr().out
    assert (tmp_path / "table.csv").read_text() == f"file,name,value\na,first,0.1\nb,second,{1 / 3}\nc,third,-inf\n"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_a_row_that_was_cut_is_worked_out_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        plan_of(tmp_path, [], stops_at="c").run(overwrite=False)
    part = tmp_path / "table.csv.part"
    part.write_text(part.read_text()[:-3])
    with pytest.raises(KeyboardInterrupt):
        plan_of(tmp_path, asked := [], stops_at="c").run(overwrite=False)
    assert asked == ["b", "c"] and TableFile(tmp_path / "table.csv", []).rows.keys() == {"a", "b"}


def test_overwriting_begins_anew_and_goes_on_if_it_is_interrupted(tmp_path: Path) -> None:
    plan_of(tmp_path, []).run(overwrite=False)
    with pytest.raises(ValueError, match=r"expected no .*table\.csv, got one; overwrite=true replaces it"):
        plan_of(tmp_path, []).check(overwrite=False)
    with pytest.raises(KeyboardInterrupt):
        plan_of(tmp_path, [], stops_at="b").run(overwrite=True)
    plan = plan_of(tmp_path, asked := [])
    plan.check(overwrite=False)
    assert plan.run(overwrite=False) == 2 and asked == ["b", "c"]
