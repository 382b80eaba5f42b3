"""A tracker that fails costs no result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb

import train
from src.config.composition import compose_config
from src.loggers.shielded import shielded
from src.loggers.wandb_logger import wandb_logger
from src.runs.folder import RunFolder
from src.runs.summary import read_summary
from tests.fakes import BrokenTracker, tiny_overrides

ROOT = Path(train.__file__).parent
# Folders that people make of their arguments.
NAMES = ("a:b", "a;b,c#d?e'f", "lr=0.01 été", "n" * 129, "n" * 200, " spaces ", "%2F\\")


def result(folder: Path) -> dict[str, Any]:
    metrics = read_summary(RunFolder(folder).summary)["metrics"]
    return {name: value for name, value in metrics.items() if not name.startswith(("time/", "memory/"))}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("without") / "run"
    train.train(compose_config(tiny_overrides(folder)))
    return result(folder)


@pytest.mark.parametrize("can_be_opened", [True, False])
def test_a_tracker_that_fails_in_everything_is_a_warning(
    can_be_opened: bool, expected: dict[str, Any], tmp_path: Path
) -> None:
    BrokenTracker.asked.clear()
    tracker = {"_target_": "tests.fakes.BrokenTracker", "save_dir": str(tmp_path), "can_be_opened": can_be_opened}
    config = compose_config([*tiny_overrides(tmp_path), "logger=[csv,tensorboard]"])
    config.logger.tensorboard = tracker
    with pytest.warns(UserWarning, match="BrokenTracker") as warned:
        train.train(config)
    assert result(tmp_path) == expected
    asked, messages = BrokenTracker.asked, [str(w.message) for w in warned if "BrokenTracker" in str(w.message)]
    assert asked[-1] == "finish True" and len(messages) == len(set(messages))
    if can_be_opened:
        assert {"add_scalar", "add_image"} <= set(asked)
        assert any("log_metrics failed, but the run continues: " in message for message in messages)
        assert any("finish failed, but the run continues: RuntimeError: gone" in message for message in messages)
    else:
        assert asked.count("experiment") == 1
        assert len(messages) == 1 and "ConnectionError: no server" in messages[0]


def test_a_shielded_tracker_is_what_it_was_and_returns_what_it_returned(tmp_path: Path) -> None:
    logger = shielded(wandb_logger(str(tmp_path / "run"), project="p"))
    assert isinstance(logger, type(wandb_logger(str(tmp_path), project="p")))
    assert logger.name == "p" and logger.version.startswith("run-") and logger.save_dir == str(tmp_path / "run")


@pytest.mark.parametrize("name", NAMES)
def test_wandb_takes_the_name_of_every_folder(name: str, tmp_path: Path) -> None:
    logger = wandb_logger(str(tmp_path / name))
    assert wandb.Settings(run_id=logger.version, run_name=logger._name).run_id == logger.version
    wandb.Artifact(f"run-{logger.version}-testvolumes", "table")
    assert logger.version == wandb_logger(str(tmp_path / name)).version
    assert len({wandb_logger(str(tmp_path / other)).version for other in NAMES}) == len(NAMES)


def test_the_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert wandb_logger(".").version == wandb_logger(str(tmp_path / "here")).version
    assert wandb_logger(".").version.startswith("here-")


def run_with_wandb(folder: Path, *more: str, **environment: str) -> subprocess.CompletedProcess:
    config = json.dumps(tiny_overrides("elsewhere", "logger=wandb", *more))
    # On no command line: Hydra's grammar would want the name in quotation marks.
    code = f"""
import sys; sys.argv = ["train.py"]
import train
from src.config.composition import compose_config
config = compose_config({config})
config.run_dir = {str(folder)!r}
train.train(config)
"""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment = {**inherited, "WANDB_MODE": "offline", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_home_that_cannot_be_written_costs_no_result(expected: dict[str, Any], tmp_path: Path) -> None:
    done = run_with_wandb(tmp_path, HOME="/proc/nowhere")
    assert done.returncode == 0, done.stderr
    assert "WandbRun.log_metrics failed, but the run continues: " in done.stderr and result(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_wandb_tracks_a_run_of_any_name(
    name: str, expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: Any
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = compose_config(tiny_overrides("elsewhere", "logger=wandb"))
    config.run_dir = str(tmp_path / name)
    train.train(config)
    assert not [str(w.message) for w in recwarn if "failed" in str(w.message)]
    assert list((tmp_path / name / "wandb").glob("offline-run-*")) and result(tmp_path / name) == expected


@pytest.mark.slow
def test_a_temporary_folder_that_is_cleared_costs_no_result(expected: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    clear = "+callbacks.clear._target_=tests.fakes.RemoveTemporaryFiles"
    done = run_with_wandb(tmp_path / "run", clear, TMPDIR=str(tmp_path / "tmp"))
    assert done.returncode == 0, done.stderr
    assert "WandbRun.log_metrics failed, but the run continues: FileNotFoundError" in done.stderr
    assert result(tmp_path / "run") == expected
