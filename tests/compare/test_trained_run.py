"""What train.py itself leaves behind, stopped and resumed."""

from __future__ import annotations

import itertools
import signal
import sys
from pathlib import Path

import pytest

import train
from src.compare.page import page_data
from src.compare.runs import read_run
from src.compare.sources import find_sources
from src.config.composition import compose_config
from src.runs.folder import RunFolder
from src.runs.summary import read_summary
from tests.fakes import tiny_overrides

LOGGERS = ("csv", "tensorboard", "wandb")
COMBINATIONS = [names for count in range(len(LOGGERS) + 1) for names in itertools.combinations(LOGGERS, count)]
FAST = ((), ("tensorboard",))


@pytest.mark.parametrize(
    "loggers", [pytest.param(names, marks=[pytest.mark.slow] * (names not in FAST)) for names in COMBINATIONS]
)
def test_a_run_is_read_whatever_its_loggers(
    loggers: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    choice = f"logger=[{','.join(loggers)}]"
    summary = train.train(compose_config(tiny_overrides(tmp_path / "run", "trainer.log_every_n_steps=1", choice)))
    run = read_run(tmp_path / "run")
    assert run.finished and run.summary["metrics"] == summary["metrics"]
    # Two epochs of two steps each, whoever tells it.
    steps = [0, 1, 2, 3] if "csv" in loggers else [2, 4]
    assert [step for step, _ in run.history["train/loss"]] == steps
    last = {name: summary["metrics"][name] for name in ("val/psnr", "val/loss")}
    assert {name: run.history[name][-1][1] for name in last} == pytest.approx(last)

    RunFolder(tmp_path / "run").summary.unlink()
    unfinished = read_run(tmp_path / "run")
    assert not unfinished.finished and {name: unfinished.summary["metrics"][name] for name in last} == pytest.approx(
        last
    )
    (shown,) = page_data(find_sources([str(tmp_path)]), "none")["runs"]
    assert set(shown["curves"]) >= {"train/loss", *last}


@pytest.mark.slow
def test_a_run_is_unfinished_until_it_is_resumed_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = f"+callbacks.stop={{_target_:tests.fakes.SignalAfter,signum:{signal.SIGTERM:d},step:3}}"
    with pytest.raises(SystemExit):
        train.train(compose_config(tiny_overrides(tmp_path, "trainer.log_every_n_steps=1", stop)))
    stopped = read_run(tmp_path)
    assert not stopped.finished and stopped.summary["model"] == "iunet"
    assert [step for step, _ in stopped.history["val/psnr"]] == [1]

    monkeypatch.setattr(sys, "argv", ["train.py", f"resume={tmp_path}", "callbacks.stop.step=-1"])
    train.main()
    run = read_run(tmp_path)
    assert run.finished
    assert [step for step, _ in run.history["val/psnr"]] == [1, 3]
    assert [step for step, _ in run.history["train/loss"]] == [0, 1, 2, 3]
    assert [step for step, _ in run.history["val/psnr"]] == [1, 3]
    metrics = read_summary(RunFolder(tmp_path).summary)["metrics"]
    last = {name: run.history[name][-1][1] for name in ("val/psnr", "test/psnr", "test/ssim")}
    assert last == pytest.approx({name: metrics[name] for name in last})
    assert list(run.pictures["val-000"]) == [0, 1] and list(run.pictures["test-000"]) == [None]
