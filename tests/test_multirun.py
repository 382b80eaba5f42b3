"""Several jobs of one command line: one that fails does not end the others, and a signal ends all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import train
from src.runs.config_file import load_config
from src.runs.folder import RunFolder
from src.runs.summary import read_summary
from tests.fakes import tiny_overrides

ROOT = Path(train.__file__).parent


def run(command: list[str], *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HYDRA_", "WANDB_"))}
    environment = {**inherited, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, *command, "--multirun", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("failures", "jobs", "code", "messages"),
    [
        ({}, [0, 1, 2], 0, []),
        ({0: "user", 1: "full disk"}, [0, 1, 2], 2, ["expected another seed", "[Errno 28] No space left on device"]),
        ({2: "user"}, [0, 1, 2], 2, ["expected another seed"]),
        ({0: "bug"}, [0, 1, 2], 2, []),
        ({1: "signal"}, [0, 1], 130, []),
    ],
)
def test_a_failing_job_leaves_the_others_alone(
    failures: dict[int, str], jobs: list[int], code: int, messages: list[str], tmp_path: Path
) -> None:
    command = ["-m", "tests.failing_jobs", json.dumps(failures)]
    done = run(command, "seed=0,1,2", f"hydra.sweep.dir={tmp_path}")
    assert done.returncode == code, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("job ")] == [f"job {seed}" for seed in jobs]
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        f"error: {m}" for m in messages
    ]
    assert done.stderr.count("Traceback") == ("bug" in failures.values())


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "submitit_local"])
def test_the_second_job_in_one_folder_is_refused(launcher: str, tmp_path: Path) -> None:
    overrides = tiny_overrides(tmp_path / "shared", "trainer.max_epochs=1", "seed=0,1", f"hydra/launcher={launcher}")
    done = run(["train.py"], *overrides, f"hydra.sweep.dir={tmp_path}/jobs")
    assert done.returncode == 2, done.stderr
    shared = RunFolder(tmp_path / "shared")
    config, summary = load_config(shared.config), read_summary(shared.summary)
    assert (
        config.seed == summary["seed"] and config.choices["trainer"] == summary["config"]["choices"]["trainer"] == "cpu"
    )


@pytest.mark.slow
def test_the_job_after_a_failed_one_has_a_wandb_run_of_its_own(tmp_path: Path) -> None:
    diverging = "task.optimizer.lr=1e30,1e-3"
    folder = f"{tmp_path}/run-${{task.optimizer.lr}}"
    overrides = tiny_overrides(folder, "trainer.max_epochs=1", "test=false", "logger=wandb", diverging)
    done = run(["train.py"], *overrides, f"hydra.sweep.dir={tmp_path}/jobs", WANDB_MODE="offline")
    assert done.returncode == 2 and "error: " in done.stderr, done.stderr
    assert "already in progress" not in done.stderr
    runs = [path.name for path in tmp_path.glob("run-*/wandb/offline-run-*")]
    assert len(runs) == 2 and len(set(runs)) == 2
