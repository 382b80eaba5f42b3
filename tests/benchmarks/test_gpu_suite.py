"""The suite for a GPU, on a CPU at tiny sizes: every number is there, and no error or hang ends it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import __main__ as suite
from benchmarks.gpu.plan import PLAN, Step, chosen, within
from benchmarks.gpu.recording import Recorder
from benchmarks.gpu.report import read_lines, write_report
from src.config.checks import check_config
from src.config.composition import compose_config
from src.config.targets import check_targets

MODULES = [step.name for step in PLAN if not step.overrides and step.name != "tests"]
TRAININGS = [step for step in PLAN if step.overrides]


def test_every_number_is_there_at_tiny_sizes(tmp_path: Path) -> None:
    suite.main(["--device", "cpu", "--quick", "--output", str(tmp_path), "--steps", *MODULES])
    assert [line["step"] for line in read_lines(tmp_path / "steps.jsonl")] == MODULES
    lines = read_lines(tmp_path / "results.jsonl")
    assert [line for line in lines if "error" in line] == []
    assert {line["step"] for line in lines} == set(MODULES)
    gradients = [line for line in lines if line["what"] == "gradient"]
    assert len(gradients) == 3 * 2 * 4
    for line in gradients:
        assert line["relative_error"] < (0.15 if line["bf16"] else 1e-5)
    report = (tmp_path / "report.md").read_text()
    assert all(f"## {name}: " in report for name in MODULES)


def arguments(folder: Path, **changes: Any) -> Any:
    values = {"output": folder, "device": "cpu", "quick": True, "data": None, "minutes": 5.0} | changes
    return type("Arguments", (), values)()


def test_a_step_that_hangs_or_fails_is_a_result_and_the_next_one_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = {
        "hangs": "import time; print('here', flush=True); time.sleep(60)",
        "deaf": "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)",
        "crashes": "import os; os.abort()",
        "works": "pass",
    }
    monkeypatch.setattr(suite, "command_of", lambda step, _: [sys.executable, "-c", codes[step.name]])
    monkeypatch.setattr(suite, "KILLED_AFTER_S", 0.3)
    steps = [Step(name, 1.0, ("word",)) for name in codes]
    suite.run_plan(steps, arguments(tmp_path))
    ended = {line["step"]: line["code"] for line in read_lines(tmp_path / "steps.jsonl")}
    assert ended == {"hangs": -15, "deaf": -9, "crashes": -6, "works": 0}
    assert "== hangs\nhere\n" in (tmp_path / "log.txt").read_text()


def test_a_plan_is_cut_at_its_end(tmp_path: Path) -> None:
    assert within(Step("a", 60.0), 30.0) == Step("a", 30.0) and within(Step("a", 60.0), 10.0) is None
    suite.run_plan(PLAN[:2], arguments(tmp_path, minutes=0.1))
    assert [line["skipped"] for line in read_lines(tmp_path / "steps.jsonl")] == ["no time left"] * 2
    assert sum(step.seconds for step in PLAN) < 20 * 60


def test_a_training_without_its_data_is_skipped(tmp_path: Path) -> None:
    [step] = chosen(["train_glow"])
    assert suite.command_of(step, arguments(tmp_path)) == "needs --data with cifar-10-batches-py"
    (tmp_path / "cifar-10-batches-py").mkdir()
    command = suite.command_of(step, arguments(tmp_path, data=tmp_path))
    assert f"datamodule.data_dir={tmp_path}" in command


@pytest.mark.parametrize("step", TRAININGS, ids=[step.name for step in TRAININGS])
def test_every_training_composes(step: Step, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    command = suite.command_of(step, arguments(tmp_path, data=tmp_path))
    assert isinstance(command, list)
    config = compose_config(command[2:])
    check_config(config)
    check_targets(config)


def test_unknown_steps_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        suite.main(["--steps", "enviroment", "--output", str(tmp_path)])
    assert "expected steps among environment, gradients" in capsys.readouterr().err


def test_an_error_keeps_the_numbers_before_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "results.jsonl", "a", "cpu", 60.0, quick=True)
    with recorder.measurement("b", size=3) as numbers:
        numbers["first"] = 1.0
        raise RuntimeError("no more memory")
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"cut')
    line = {"step": "a", "what": "b", "size": 3, "first": 1.0, "error": "RuntimeError: no more memory"}
    assert read_lines(tmp_path / "results.jsonl") == [line]
    write_report(tmp_path)
    assert "RuntimeError: no more memory" in (tmp_path / "report.md").read_text()
    assert json.loads(json.dumps(line)) == line
