"""Metrics over the steps: metrics.csv, or the curves of a checkpoint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from src.callbacks.pictures.curves import Curves
from src.runs.checkpoint_io import AtomicCheckpointIO
from src.runs.csv_logger import CsvLogger
from src.runs.folder import RunFolder
from src.runs.history import STATE_KEY, read_history, read_rows
from src.utils.reading import FileError


def test_the_history_of_a_run_is_what_its_logger_wrote(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert read_history(run) == {}
    logger = CsvLogger(str(run.metrics))
    rows = [(0, {"train/loss": 1.5, "epoch": 0}), (1, {"val/loss": 0.5, "epoch": 0}), (1, {"lr": float("nan")})]
    for step, values in rows:
        logger.log_metrics(values, step)
    history = read_history(run)
    ((step, rate),) = history.pop("lr")
    assert step == 1 and math.isnan(rate)
    assert history == {"train/loss": [(0, 1.5)], "val/loss": [(1, 0.5)]}


def test_the_history_of_a_run_without_a_table_is_that_of_its_curves(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    curves = Curves(str(tmp_path), {"loss": ["val/loss", "val/none"]})
    curves.history = {"val/loss": [(2, 0.5), (4, math.inf)], "val/none": []}
    content = {"state_dict": {}, "config": {}, "callbacks": {curves.state_key: curves.state_dict()}}
    AtomicCheckpointIO().save_checkpoint(content, run.checkpoint())
    assert read_history(run) == {"val/loss": [(2, 0.5), (4, math.inf)]}
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "config": {}}, run.checkpoint())
    assert read_history(run) == {}


def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss\n0,1.5\n1,0.1234")
    assert read_rows(path) == [(0, {"train/loss": 1.5})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"train/loss\n1\n", "column 'step'"),
        (b"step,loss\n0\n1,2\n", "expected 2 numbers or empty cells in line 2"),
        (b"step,loss\n0,high\n", "line 2.*'0,high'"),
        (b"step,loss\n,1\n", "line 2"),
        (b"\xff\xfe\x00step\n", "expected a metrics.csv"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "state", [[], {"history": [], "running": {}}, {"history": {"a": [[0, "x"]]}}, {"history": {"a": [[10**400, 1.0]]}}]
)
def test_a_checkpoint_with_other_curves_is_named(state: Any, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    content = {"state_dict": {}, "config": {}, "callbacks": {STATE_KEY: {"running": {}, **state} if state else state}}
    AtomicCheckpointIO().save_checkpoint(content, run.checkpoint())
    with pytest.raises(FileError, match="expected a checkpoint with curves") as caught:
        read_history(run)
    assert str(run.checkpoint()) in str(caught.value)


@pytest.mark.parametrize("step", ["1" * 400, "1" * 5000, str(2**53 + 1), "nan"])
def test_a_step_that_no_run_reaches_is_refused(step: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,loss\n{step},1\n")
    with pytest.raises(ValueError, match="line 2"):
        read_rows(path)
