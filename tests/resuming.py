"""Shared by tests of interrupted runs: a tiny run, ways to stop it, and what must be equal in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from omegaconf import OmegaConf

import train
from src.config.composition import compose_config
from src.runs.folder import RunFolder
from src.runs.history import STATE_KEY, read_rows
from src.runs.summary import read_summary
from tests.fakes import tiny_overrides

ROOT = Path(train.__file__).parent
# Two epochs of three steps; noise in gradients and augmentation shows whether the random numbers continued.
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
    "double precision": ["trainer.precision=64-true"],
    "averages in double precision": ["trainer.precision=64-true", "callbacks=ema", "callbacks.ema.decay=0.5"],
    "plateau": ["task/scheduler=plateau", "task.scheduler.patience=0", "task.scheduler.threshold=10"],
    "best first": ["monitor.metric=val/psnr_fbp"],
}
# Durations and the memory of a process are not results of the training.
MEASURED = {"time/step_s", "memory/peak_gib"}
# Keys of summary.json that may differ: the configuration names the folder, the resumed run and the stopping callback.
OWN = {
    "total_time_s",
    "step_time_s",
    "peak_memory_bytes",
    "run_dir",
    "checkpoint",
    "config",
    "metrics",
    "git_commit",
    "earlier_git_commits",
}


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
    return torch.load(RunFolder(folder).checkpoint(name), weights_only=True)


def history(folder: Path) -> list[dict[str, Any]]:
    # One dict per step and kind of row; for measured numbers, only whether they are present.
    return [
        {"step": step, **{name: name in MEASURED or repr(value) for name, value in row.items()}}
        for step, row in read_rows(RunFolder(folder).metrics)
    ]


def plain(value: Any) -> Any:
    """Return tensors as bytes, so that whole containers can be compared."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def assert_equal(found: Any, expected: Any) -> None:
    """Assert that weights, optimizer, scheduler, progress, random state, rows, curves and summary are equal."""
    first, second = checkpoint(found), checkpoint(expected)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "random_state", "global_step"):
        assert plain(first[key]) == plain(second[key]), key
    curves = [c["callbacks"][STATE_KEY] for c in (first, second)]
    assert curves[0] == curves[1]
    assert history(found) == history(expected)
    assert summary(found) == summary(expected)
    assert plain(checkpoint(found, "best")["state_dict"]) == plain(checkpoint(expected, "best")["state_dict"])
    assert RunFolder(found).test_table.read_text() == RunFolder(expected).test_table.read_text()


def summary(folder: Path) -> dict[str, Any]:
    """Return what must be equal in two runs that did the same; for measured numbers, only whether they are present."""
    content = read_summary(RunFolder(folder).summary)
    metrics = {name: name in MEASURED or value for name, value in content["metrics"].items()}
    assert {"time/step_s", "memory/peak_gib", "train/loss", "val/psnr", "test/psnr"} <= metrics.keys()
    return {**{key: key in OWN or value for key, value in content.items()}, "metrics": metrics}


class WholeRuns(dict):
    """The uninterrupted run of each variant, made on demand in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, variant: str) -> Path:
        self[variant] = self.folder / variant
        run(self[variant], *VARIANTS[variant])
        return self[variant]


def readable(folder: Path) -> None:
    """Assert that every file of a run folder can be read completely."""
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
    # Without WANDB_SERVICE, because W&B's service of this process would keep the run of a killed one open.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env={**environment, "WANDB_MODE": "offline"}, text=True, **pipes)
