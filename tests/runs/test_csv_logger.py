"""The table of a run's numbers."""

from __future__ import annotations

import math
from pathlib import Path

from src.runs.csv_logger import CsvLogger
from src.runs.history import read_rows


def test_every_row_is_on_the_disk_at_once_under_sorted_columns(tmp_path: Path) -> None:
    path = tmp_path / "csv" / "metrics.csv"
    logger = CsvLogger(str(path))
    logger.log_metrics({"b": 0.1}, 0)
    assert path.read_text() == "b,step\n0.1,0\n"
    logger.log_metrics({"a": 1e-300, "b": 2}, 1)
    logger.log_metrics({"b": float("nan")}, 2)
    assert path.read_text() == "a,b,step\n,0.1,0\n1e-300,2.0,1\n,nan,2\n"
    rows = read_rows(path)
    assert rows[:2] == [(0, {"b": 0.1}), (1, {"a": 1e-300, "b": 2.0})]
    assert rows[2][0] == 2 and math.isnan(rows[2][1]["b"])


def test_a_run_that_goes_on_drops_later_rows_and_half_a_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = CsvLogger(str(path))
    for step in range(4):
        first.log_metrics({"loss": step / 10}, step)
    first.log_metrics({"late": 1.0}, 3)
    with path.open("a") as file:
        file.write("0.4")  # a kill in the middle of a row
    second = CsvLogger(str(path))
    second.go_on_from(2)
    assert path.read_text() == "loss,step\n0.0,0\n0.1,1\n"
    second.log_metrics({"loss": 0.2}, 2)
    second.log_metrics({"val": 3.0}, 2)
    assert path.read_text() == "loss,step,val\n0.0,0,\n0.1,1,\n0.2,2,\n,2,3.0\n"


def test_a_new_run_in_an_old_folder_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    for value in (1.0, 2.0):
        CsvLogger(str(path)).log_metrics({"x": value}, 0)
    assert path.read_text() == "step,x\n0,2.0\n"


def test_a_run_that_goes_on_without_a_table_makes_one(tmp_path: Path) -> None:
    logger = CsvLogger(str(tmp_path / "metrics.csv"))
    logger.go_on_from(5)
    logger.log_metrics({"x": 1.0}, 5)
    assert read_rows(tmp_path / "metrics.csv") == [(5, {"x": 1.0})]


def test_a_row_that_is_logged_again_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    logger = CsvLogger(str(path))
    for step, loss in [(0, 0.5), (0, 0.5), (1, 0.5), (1, float("nan")), (1, float("nan")), (1, 0.5)]:
        logger.log_metrics({"loss": loss}, step)
    assert path.read_text() == "loss,step\n0.5,0\n0.5,1\nnan,1\n0.5,1\n"
