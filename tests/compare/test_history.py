"""Curves: what metrics.csv holds, what a resumed run makes of it, and what thinning keeps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from src.compare.history import merge, read_csv, read_history, thin
from src.runs.curve_history import STATE_KEY

from src.runs.checkpoint_io import AtomicCheckpointIO
from src.utils.reading import FileError
from tests.compare.folders import write_csv


def test_a_metric_has_the_steps_that_have_a_value(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write_csv(path, [{"step": 0, "train/loss": 1}, {"step": 1, "epoch": 0, "val/loss": 0.5}, {"step": 1, "lr": "nan"}])
    history = read_csv(path)
    ((step, rate),) = history.pop("lr")
    assert step == 1 and math.isnan(rate)
    assert history == {"train/loss": [(0, 1.0)], "val/loss": [(1, 0.5)]}


def test_the_later_start_replaces_the_steps_that_are_done_again(tmp_path: Path) -> None:
    # Killed at step 5, gone on from a checkpoint of step 3, then tested twice.
    first = [{"step": step, "train/loss": 1.0} for step in range(6)] + [{"step": 6, "test/loss": 9.0}]
    second = [{"step": step, "train/loss": 2.0} for step in range(3, 8)] + [{"step": 8, "test/loss": 3.0}]
    write_csv(tmp_path / "csv" / "version_9" / "metrics.csv", first)
    write_csv(tmp_path / "csv" / "version_10" / "metrics.csv", second)
    (tmp_path / "csv" / "version_11").mkdir()
    (tmp_path / "csv" / "version_11" / "metrics.csv").touch()
    assert read_history(tmp_path) == {
        "train/loss": [(0, 1.0), (1, 1.0), (2, 1.0), *((step, 2.0) for step in range(3, 8))],
        "test/loss": [(8, 3.0)],
    }


def test_merging_nothing_changes_nothing() -> None:
    history = {"loss": [(0, 1.0), (1, 2.0)]}
    assert merge(history, {}) == history
    assert merge({}, history) == history


def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss\n0,1.5\n1,0.1234")
    assert read_csv(path) == {"train/loss": [(0, 1.5)]}


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
        read_csv(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "state", [[], {"history": [], "running": {}}, {"history": {"a": [[0, "x"]]}}, {"history": {"a": [[10**400, 1.0]]}}]
)
def test_a_checkpoint_with_other_curves_is_named(state: Any, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    content = {"state_dict": {}, "config": {}, "callbacks": {STATE_KEY: {"running": {}, **state} if state else state}}
    AtomicCheckpointIO().save_checkpoint(content, path)
    with pytest.raises(FileError, match="expected a checkpoint with curves") as caught:
        read_history(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("step", ["1" * 400, "1" * 5000, str(2**53 + 1), "nan"])
def test_a_step_that_no_run_reaches_is_refused(step: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,loss\n{step},1\n")
    with pytest.raises(ValueError, match="line 2"):
        read_csv(path)


def test_few_points_stay_as_they_are() -> None:
    assert thin([(3, 0.5), (7, math.inf)], 2) == {"step": [3, 7], "value": [0.5, None], "group": 1}


@pytest.mark.parametrize(("count", "limit"), [(101, 10), (2001, 2000), (4000, 2000)])
def test_thinning_keeps_the_mean_and_every_extreme(count: int, limit: int) -> None:
    values = np.random.default_rng(0).normal(size=count)
    values[count // 2] = 1000.0
    curve = thin([(2 * i, value) for i, value in enumerate(values)], limit)
    assert len(curve["step"]) <= limit
    assert max(curve["high"]) == 1000.0
    group = curve["group"]
    assert group == math.ceil(count / limit)
    for position, start in enumerate(range(0, count, group)):
        members = values[start : start + group]
        got = [curve[name][position] for name in ("low", "value", "high")]
        np.testing.assert_allclose(got, [members.min(), members.mean(), members.max()], rtol=1e-5)
        assert 2 * start <= curve["step"][position] < 2 * (start + group)


def test_a_group_without_finite_values_is_a_gap() -> None:
    curve = thin([(0, math.nan), (1, math.nan), (2, 4.0), (3, math.inf)], 2)
    assert (curve["low"], curve["value"], curve["high"]) == ([None, 4.0], [None, 4.0], [None, 4.0])
