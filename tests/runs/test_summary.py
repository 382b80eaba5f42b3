"""summary.json, and the table at the end of a run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from rich.console import Console

from src.callbacks.peak_memory import PeakMemory
from src.callbacks.step_time import StepTime
from src.config.composition import compose_config
from src.runs.formats import FORMAT, FORMAT_KEY
from src.runs.summary import MEASURED, print_table, read_summary, summarise, write_summary
from src.tasks.base import Report
from src.tasks.metrics import Metric, from_plain
from src.utils.reading import FileError

ROOT = Path(__file__).resolve().parents[2]
PSNR = Metric("psnr", "PSNR", "dB", "max", 2)


def a_run(run_dir: Path, *callbacks: pl.Callback) -> Any:
    """As much of a run as a summary asks for."""
    device = SimpleNamespace(root_device=torch.device("cpu"))
    trainer = SimpleNamespace(callbacks=list(callbacks), current_epoch=2, global_step=8, strategy=device)
    config = compose_config(["seed=3", f"run_dir={run_dir}"])
    return SimpleNamespace(
        config=config,
        trainer=trainer,
        task=torch.nn.Linear(2, 3),
        state=SimpleNamespace(earlier_s=5.0, commits=["older", "newer"]),
        metric_descriptions=lambda: [PSNR],
    )


def test_a_summary_comes_back_as_it_was_written(tmp_path: Path) -> None:
    memory, time = PeakMemory(), StepTime()
    memory.peak_bytes, time._seconds = 1000, [0.25]
    run = a_run(tmp_path, memory, time, pl.Callback())
    summary = summarise(run, {"val/loss": 0.5, "test/psnr": float("inf")}, "best.ckpt", 7.0)
    assert summary["metrics"] == {"test/psnr": None, "val/loss": 0.5}
    assert (summary["model"], summary["seed"], summary["num_parameters"]) == ("iunet", 3, 9)
    assert from_plain(summary["metric_descriptions"]) == (PSNR,)
    assert summary["total_time_s"] == 12.0 and summary["steps"] == 8
    assert (summary["earlier_git_commits"], summary["git_commit"]) == (["older"], "newer")
    expected = {"step_time_s": 0.25, "peak_memory_bytes": 1000, "peak_memory_kind": "process_resident"}
    assert {name: summary[name] for name in MEASURED} == {**expected, "invertibility_error": None}
    assert read_summary(write_summary(summary)) == {FORMAT_KEY: FORMAT, **summary}


def test_what_nothing_measured_is_none(tmp_path: Path) -> None:
    summary = summarise(a_run(tmp_path), {}, None, 1.0)
    assert [summary[name] for name in MEASURED] == [None] * len(MEASURED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {FORMAT_KEY: FORMAT + 1},
            rf"a file of format {FORMAT} or earlier, got '.*' of format {FORMAT + 1}: a ",
        ),
        ({FORMAT_KEY: "new"}, "of format 'new'"),
        ({FORMAT_KEY: None}, "of format None"),
        ({"metrics": [1]}, r"expected metrics to be a JSON object, got \[1\]"),
        ({"metrics": {"test/psnr": "high"}}, "expected test/psnr to be a number, got 'high'"),
        ({"step_time_s": True}, "expected step_time_s to be a number, got True"),
        ({"config": {"monitor": "val/psnr"}}, "expected monitor to be a section, got 'val/psnr'"),
    ],
)
def test_a_summary_that_no_run_of_this_version_writes_is_refused(
    content: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write_summary(summarise(a_run(tmp_path), {}, None, 1.0))
    path.write_text(json.dumps({**read_summary(path), **content}))
    with pytest.raises(FileError, match=message) as caught:
        read_summary(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"experiment": ', "expected the summary of a run"),
        ("[]", r"expected a JSON object, got \[\]"),
        ("{}", "it has no experiment, model, metrics, config"),
        ("[" * 100_000, "expected the summary of a run"),
    ],
)
def test_a_damaged_summary_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text(text)
    with pytest.raises(FileError, match=message) as caught:
        read_summary(path)
    assert str(path) in str(caught.value)


def test_a_summary_without_a_format_is_an_earlier_versions(tmp_path: Path) -> None:
    path = write_summary(summarise(a_run(tmp_path), {}, None, 1.0))
    content = read_summary(path)
    del content[FORMAT_KEY]
    path.write_text(json.dumps(content))
    assert read_summary(path) == content
    for stored in (ROOT / "experiments").glob("*/results/*/*.json"):
        assert read_summary(stored)["metrics"]


def summary(**changes: Any) -> dict[str, Any]:
    return {
        "experiment": "ct_postproc",
        "scale": "small",
        "model": "iunet",
        "steps": 10,
        "epochs": 2,
        "num_parameters": 12345,
        "step_time_s": 0.0123,
        "total_time_s": 90.0,
        "peak_memory_bytes": 2**31,
        "peak_memory_kind": "cuda_allocated",
        "invertibility_error": 3.21e-7,
        "run_dir": "outputs/a",
        **changes,
    }


def printed(with_report: bool = True, **changes: Any) -> str:
    text = io.StringIO()
    report = Report(["", "FBP", "network"], [["PSNR (dB)", "14.00", "20.50"]]) if with_report else None
    print_table(summary(**changes), report, Console(file=text, width=100))
    return text.getvalue()


def test_the_tables_show_the_report_and_the_costs() -> None:
    rows = {line.split("│")[1].strip(): line for line in printed().splitlines() if "│" in line}
    assert [cell.strip() for cell in rows["PSNR (dB)"].split("│")[2:4]] == ["14.00", "20.50"]
    assert "ct_postproc (small), iunet: test set" in printed()
    assert "12,345" in rows["parameters"] and "12.3 ms" in rows["time per step"]
    assert "2.00 GiB (cuda, allocated)" in rows["peak memory"] and "3.21e-07" in rows["invertibility error"]
    assert printed().splitlines()[-1] == "files: outputs/a"


def test_the_table_leaves_out_what_was_not_measured() -> None:
    text = printed(with_report=False, step_time_s=None, peak_memory_bytes=None, invertibility_error=None)
    assert all(word not in text for word in ("PSNR", "step", "memory", "invertibility"))
