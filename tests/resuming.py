"""What tests of interrupted runs share: a tiny run, ways to stop it, and what must be equal in the end."""

from __future__ import annotations

import csv
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
    "double precision": ["trainer.precision=64-true"],
    "averages in double precision": ["trainer.precision=64-true", "callbacks=ema", "callbacks.ema.decay=0.5"],
    "best first": ["monitor.metric=val/psnr_fbp"],
}
# How long something took, and the memory of a process, are no numbers of the training.
MEASURED = {"time/step_s", "memory/peak_gib"}
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


def history(folder: Path) -> list[dict[str, Any]]:
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    # One dict for each step and kind of row; of a measured number, that it is there.
    return [{name: name in MEASURED or cell for name, cell in row.items() if cell} for row in rows]


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


class WholeRuns(dict):
    """The uninterrupted run of each variant, made when asked for, below a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, variant: str) -> Path:
        self[variant] = self.folder / variant
        run(self[variant], *VARIANTS[variant])
        return self[variant]


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
