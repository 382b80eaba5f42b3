"""A run that was interrupted and goes on is the run that was not interrupted."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from omegaconf import OmegaConf

import train
from src.utils.composition import compose_config
from tests.fakes import tiny_overrides

ROOT = Path(train.__file__).parent
# Two epochs of three steps; noise in gradients and augmentation tells whether random numbers went on.
RUN = [
    "datamodule.num_train=6",
    "datamodule.augment=true",
    "trainer.log_every_n_steps=1",
    "+callbacks.noise={_target_:tests.fakes.NoisyGradients}",
]
VARIANTS = {
    "plain": [],
    "workers": ["datamodule.num_workers=2"],
    "accumulation": ["trainer.accumulate_grad_batches=2"],
    "validation within epochs": ["+trainer.val_check_interval=2"],
}
# How long something took, and the memory of a process, are no numbers of the training.
MEASURED = {"time/step_s", "memory/peak_gib", "epoch"}
# Of summary.json; the configuration names the folder, the run to go on from, and the callback that stops.
OWN = {"total_time_s", "step_time_s", "peak_memory_bytes", "run_dir", "checkpoint", "config", "metrics", "git_commit"}


def overrides(folder: Path, *more: str) -> list[str]:
    return tiny_overrides(folder, *RUN, *more)


def run(folder: Path, *more: str) -> dict[str, Any]:
    return train.train(compose_config(overrides(folder, *more)))


def resume(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    train.main()


def stop_at(step: int, signum: signal.Signals) -> str:
    return f"+callbacks.stop={{_target_:tests.fakes.SignalAfter,signum:{int(signum)},step:{step}}}"


def checkpoint(folder: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    # One dict for each step and kind of row, without the measured numbers.
    rows = [{name: cell for name, cell in row.items() if cell and name not in MEASURED} for row in rows]
    return [row for row in rows if len(row) > 1]


def plain(value: Any) -> Any:
    """Tensors as bytes, so that whole containers can be compared."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def assert_equal(found: Any, expected: Any) -> None:
    """Weights, optimizer, scheduler, progress, random state, rows, curves and summary, bit for bit."""
    first, second = checkpoint(found), checkpoint(expected)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "random_state", "global_step"):
        assert plain(first[key]) == plain(second[key]), key
    curves = [next(v for k, v in c["callbacks"].items() if k.startswith("Curves")) for c in (first, second)]
    assert curves[0] == curves[1]
    assert history(found) == history(expected)
    assert summary(found) == summary(expected)
    assert plain(checkpoint(found, "best")["state_dict"]) == plain(checkpoint(expected, "best")["state_dict"])
    assert (found / "test_table.csv").read_text() == (expected / "test_table.csv").read_text()


def summary(folder: Path) -> dict[str, Any]:
    """What must be the same in two runs that did the same; of what is measured, that it is there."""
    content = json.loads((folder / "summary.json").read_text())
    metrics = {name: name in MEASURED or value for name, value in content["metrics"].items()}
    assert {"time/step_s", "memory/peak_gib", "train/loss", "val/psnr", "test/psnr"} <= metrics.keys()
    return {**{key: key in OWN or value for key, value in content.items()}, "metrics": metrics}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One uninterrupted run for each variant, made when asked for."""

    class Runs(dict):
        def __missing__(self, name: str) -> Path:
            folder = tmp_path_factory.mktemp("whole") / "run"
            run(folder, *VARIANTS[name])
            self[name] = folder
            return folder

    return Runs()


@pytest.mark.parametrize(
    ("variant", "step"),
    [*[("plain", step) for step in range(1, 7)], ("workers", 2), ("workers", 3), ("accumulation", 1)]
    + [("validation within epochs", step) for step in (1, 2, 4)],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    variant: str, step: int, whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, *VARIANTS[variant], stop_at(step, signal.SIGTERM))
    assert stopped.value.code == 143
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.stop.step=-1")
    assert_equal(tmp_path, whole[variant])


def readable(folder: Path) -> None:
    """Every file of a run folder can be read to its end."""
    for path in folder.rglob("*"):
        if path.suffix == ".ckpt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".png":
            imread(path)
        elif path.suffix == ".yaml":
            OmegaConf.load(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "train.py", *arguments]
    # Without WANDB_SERVICE: W&B's process of this one would keep the run of a killed one open.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env={**environment, "WANDB_MODE": "offline"}, text=True, **pipes)


@pytest.mark.parametrize("step", [*[pytest.param(n, marks=pytest.mark.slow) for n in (2, 3)], 4])
def test_a_killed_run_loses_what_came_after_its_last_checkpoint_and_nothing_else(
    step: int, whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(*overrides(tmp_path, "callbacks.last.every_n_steps=1", stop_at(step, signal.SIGKILL)))
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    readable(tmp_path)
    # Killed before the checkpoint of that step could be written.
    assert checkpoint(tmp_path)["global_step"] == step - 1
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.stop.step=-1")
    assert_equal(tmp_path, whole["plain"])


@pytest.mark.slow
def test_kills_at_any_moment(tmp_path: Path) -> None:
    longer = ["trainer.max_epochs=12", "callbacks.last.every_n_steps=1", "logger=many"]
    run(tmp_path / "whole", *longer)
    folder, clock, kills = tmp_path / "killed", random.Random(0), 0
    arguments = overrides(folder, *longer)
    while True:
        process = start(*arguments)
        deadline = time.monotonic() + (clock.uniform(5.0, 25.0) if kills < 8 else 600.0)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
        if folder.exists():
            readable(folder)
        if (folder / "checkpoints" / "last.ckpt").exists():
            arguments = [f"resume={folder}"]
    assert process.returncode == 0, process.communicate()[1]
    assert_equal(folder, tmp_path / "whole")


@pytest.mark.slow
def test_steps_of_a_longer_interval_are_done_again(tmp_path: Path, whole: dict[str, Path], monkeypatch: Any) -> None:
    process = start(*overrides(tmp_path, "callbacks.last.every_n_steps=2", stop_at(6, signal.SIGKILL)))
    process.communicate(timeout=200)
    assert checkpoint(tmp_path)["global_step"] == 5
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.stop.step=-1")
    assert_equal(tmp_path, whole["plain"])


def test_an_interval_in_minutes(tmp_path: Path) -> None:
    from src.callbacks.last_checkpoint import LastCheckpoint

    with pytest.raises(ValueError, match=r"expected a positive callbacks\.last\.every_n_minutes or null, got 0"):
        LastCheckpoint(str(tmp_path), every_n_minutes=0)
    process = start(*overrides(tmp_path, "callbacks.last.every_n_minutes=1e-9", stop_at(2, signal.SIGKILL)))
    process.communicate(timeout=200)
    assert checkpoint(tmp_path)["global_step"] == 1
