"""A run that was interrupted and resumed equals an uninterrupted run."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from src.runs.folder import RunFolder
from tests.marks import slow
from tests.resuming import (
    VARIANTS,
    WholeRuns,
    assert_equal,
    checkpoint,
    overrides,
    plain,
    readable,
    resume,
    run,
    start,
    stop_at,
    summary,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> WholeRuns:
    return WholeRuns(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    ("variant", "step"),
    [("plain", 3), slow("workers", 3)]
    + [slow("validation within epochs", 4)]
    + [slow("double precision", 2), slow("plateau", 3)]
    + [slow("plain", step) for step in (1, 2, 4, 5, 6)]
    + [slow("plateau", 4)]
    + [slow("accumulation", 1)]
    + [slow("workers", 2)]
    + [slow("validation within epochs", step) for step in (1, 2)]
    + [slow("averages in double precision", 4)],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    variant: str, step: int, whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, *VARIANTS[variant], stop_at(step, signal.SIGTERM))
    assert stopped.value.code == 143
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.stop.step=-1")
    assert_equal(tmp_path, whole[variant])


@pytest.mark.parametrize("step", [slow(n) for n in (2, 3, 4)])
def test_a_killed_run_loses_only_the_work_after_its_last_checkpoint(
    step: int, whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(*overrides(tmp_path, "callbacks.last.every_n_steps=1", stop_at(step, signal.SIGKILL)))
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    readable(tmp_path)
    # It was killed before the checkpoint of that step was written.
    assert checkpoint(tmp_path)["global_step"] == step - 1
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.stop.step=-1")
    assert_equal(tmp_path, whole["plain"])


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 3, 6])
def test_killed_when_a_checkpoint_has_just_been_written(
    step: int, whole: WholeRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = f"+callbacks.fault={{_target_:tests.faults.KillAfterCheckpoint,step:{step}}}"
    process = start(*overrides(tmp_path, "callbacks.last.every_n_steps=1", fault))
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    assert checkpoint(tmp_path)["global_step"] == step
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.fault.step=-1")
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
        if RunFolder(folder).checkpoint().exists():
            arguments = [f"resume={folder}"]
    assert process.returncode == 0, process.communicate()[1]
    assert_equal(folder, tmp_path / "whole")


@pytest.mark.slow
def test_steps_of_a_longer_interval_are_repeated(tmp_path: Path, whole: dict[str, Path], monkeypatch: Any) -> None:
    process = start(*overrides(tmp_path, "callbacks.last.every_n_steps=2", stop_at(6, signal.SIGKILL)))
    process.communicate(timeout=200)
    assert checkpoint(tmp_path)["global_step"] == 5
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.stop.step=-1")
    assert_equal(tmp_path, whole["plain"])


def test_an_interval_in_minutes(tmp_path: Path) -> None:
    from src.runs.last_checkpoint import LastCheckpoint

    with pytest.raises(ValueError, match=r"expected a positive callbacks\.last\.every_n_minutes or null, got 0"):
        LastCheckpoint(str(tmp_path), every_n_minutes=0)
    fault = "+callbacks.fault={_target_:tests.faults.Fault,where:on_train_batch_end,step:2,error:KeyboardInterrupt}"
    with pytest.raises(SystemExit):
        run(tmp_path, "callbacks.last.every_n_minutes=1e-9", fault)
    assert checkpoint(tmp_path)["global_step"] == 1


def test_a_training_that_early_stopping_has_ended_is_only_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a run that was killed in its test. Without the callback, it goes on."""
    stopping = ["callbacks=early_stopping", "callbacks.early_stopping.patience=1"]
    run(tmp_path, *stopping, "callbacks.early_stopping.min_delta=1000", "trainer.max_epochs=9")
    before, results = checkpoint(tmp_path), summary(tmp_path)
    assert before["global_step"] == 6  # the second validation was no improvement
    RunFolder(tmp_path).summary.unlink()
    resume(monkeypatch, f"resume={tmp_path}")
    after = checkpoint(tmp_path)
    assert after["global_step"] == 6 and plain(after["state_dict"]) == plain(before["state_dict"])
    assert summary(tmp_path) == results
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.early_stopping=null", "trainer.max_epochs=3")
    assert checkpoint(tmp_path)["global_step"] == 9


def test_the_last_step_waits_for_its_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from src.runs.last_checkpoint import LastCheckpoint

    saved: list[bool] = []
    loop = {"is_last_batch": False, "accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "val_check_batch": 9}
    trainer: Any = SimpleNamespace(**loop, global_step=1)
    trainer.save_checkpoint = lambda path, weights_only: saved.append(trainer.should_stop)
    callback = LastCheckpoint(str(tmp_path), every_n_steps=1)
    monkeypatch.setattr("src.runs.last_checkpoint.log_row_of_step", lambda trainer: None)
    for trainer.should_stop in (True, False):
        callback.on_train_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]
    assert saved == [False]
