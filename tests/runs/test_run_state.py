"""What a run keeps across its processes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.trainer.states import TrainerFn

from src.config.checks import plain
from src.config.composition import compose_config
from src.runs import run_state
from src.runs.formats import FORMAT, FORMAT_KEY
from src.runs.run_state import RunState


def trainer(fn: TrainerFn = TrainerFn.FITTING, **metrics: float) -> Any:
    values = {name: torch.tensor(value) for name, value in metrics.items()}
    return SimpleNamespace(
        callback_metrics=values, state=SimpleNamespace(fn=fn), checkpoint_callbacks=[], ckpt_path="last.ckpt"
    )


def saved_by(state: RunState, **metrics: float) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {}
    state.on_save_checkpoint(trainer(**metrics), None, checkpoint)  # type: ignore[arg-type]
    return checkpoint


def test_time_and_metrics_go_on_and_a_test_changes_neither(tmp_path: Path) -> None:
    config = compose_config([f"run_dir={tmp_path}"])
    first, second, third = RunState(config), RunState(config), RunState(config)
    first.earlier_s = 100.0
    checkpoint = saved_by(first, loss=0.5, psnr=20.0)
    assert checkpoint[FORMAT_KEY] == FORMAT and checkpoint["config"] == plain(config, resolve=False)
    assert 100.0 < checkpoint["total_time_s"] < 101.0
    second.on_load_checkpoint(trainer(), None, checkpoint)  # type: ignore[arg-type]
    assert second.metrics(trainer(loss=0.25)) == {"loss": 0.25, "psnr": 20.0}
    later = saved_by(second)
    assert checkpoint["total_time_s"] < later["total_time_s"] < checkpoint["total_time_s"] + 1.0
    # A test of the run's own best checkpoint, or of another run's.
    third.on_load_checkpoint(trainer(TrainerFn.TESTING), None, checkpoint)  # type: ignore[arg-type]
    assert third.earlier_s == 0.0 and third.metrics(trainer()) == {}


def test_the_learning_rate_finder_does_not_count_its_own_process_as_an_earlier_one(tmp_path: Path) -> None:
    state = RunState(compose_config([f"run_dir={tmp_path}"]))
    start = trainer()
    start.ckpt_path = None
    state.on_load_checkpoint(start, None, saved_by(state, loss=0.5))  # type: ignore[arg-type]
    assert state.earlier_s == 0.0 and state.metrics(trainer()) == {}


def test_the_commits_of_all_processes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint: dict[str, Any] = {}
    for commit, found in [("a", ["a"]), ("b", ["a", "b"]), ("b", ["a", "b"]), ("a", ["b", "a"])]:
        monkeypatch.setattr(run_state, "git_commit", lambda folder, commit=commit: commit)
        state = RunState(compose_config([f"run_dir={tmp_path}"]))
        state.on_load_checkpoint(trainer(), None, checkpoint)  # type: ignore[arg-type]
        assert state.commits == found
        checkpoint = saved_by(state)


def test_checkpoints_of_format_0_can_be_resumed(tmp_path: Path) -> None:
    state = RunState(compose_config([f"run_dir={tmp_path}"]))
    for checkpoint, seconds in (({}, 0.0), ({"callbacks": {"TotalTime": {"seconds": 9.0}}}, 9.0)):
        state.on_load_checkpoint(trainer(), None, checkpoint)  # type: ignore[arg-type]
        assert state.earlier_s == seconds and state.metrics(trainer()) == {}
