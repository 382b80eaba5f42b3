"""A training of some seconds: how long it takes, its learning rates, and what a resumed one does."""

from __future__ import annotations

import itertools
import math
import re
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

import train
from src.callbacks import time_budget
from src.callbacks.time_budget import TimeBudget
from src.config.composition import compose_config
from src.runs.folder import RunFolder
from src.runs.history import read_history
from src.runs.summary import read_summary
from tests.fakes import tiny_overrides
from tests.resuming import resume, stop_at

OVERRIDES = ["callbacks=time_budget", "task/scheduler=none", "trainer.max_epochs=100000", "trainer.log_every_n_steps=1"]


class Clock:
    """A clock that goes on by a second whenever somebody looks."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


def rates(folder: Path) -> list[float]:
    columns = read_history(RunFolder(folder))
    name = next(name for name in columns if name.startswith("lr"))
    return [value for _, value in columns[name]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time_budget, "time", made)
    return made


def test_training_ends_with_its_time_and_the_rate_falls_along_a_cosine(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["callbacks.progress._target_=src.callbacks.progress.LineProgress", "+callbacks.progress.interval_s=0.0"]
    minutes = "callbacks.time_budget.minutes=0.5"
    train.train(compose_config(tiny_overrides(tmp_path, *OVERRIDES, minutes, *lines)))
    summary = read_summary(RunFolder(tmp_path).summary)
    assert summary["training_s"] >= 30 and summary["steps"] < 30 and "test/psnr" in summary["metrics"]
    found = rates(tmp_path)
    assert all(later < earlier for earlier, later in itertools.pairwise(found))
    assert found[-1] < 0.1 * found[0]
    left = [float(minutes) for minutes in re.findall(r"([\d.]+) min left", capsys.readouterr().out)]
    assert left and max(left) <= 0.5  # and not the time of 100,000 epochs


def test_the_rate_at_a_time(clock: Clock) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    strategy = SimpleNamespace(broadcast=lambda share: share)
    trainer = cast(Any, SimpleNamespace(optimizers=[optimizer], strategy=strategy, should_stop=False))
    budget = TimeBudget(minutes=1.0)
    budget.load_state_dict({"spent_s": 19.0})
    budget.on_train_start(trainer, cast(Any, None))  # looks at the clock twice: second 20
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1 + math.cos(math.pi / 3)) and not trainer.should_stop
    clock.now += 60
    budget.on_train_batch_end(trainer, cast(Any, None))
    assert optimizer.param_groups[0]["lr"] == 0 and trainer.should_stop


@pytest.mark.parametrize(("minutes", "is_over"), [(1.0, True), (2.0, False)])
def test_a_resumed_run_whose_time_is_over_takes_no_step_unless_it_gets_more(minutes: float, is_over: bool) -> None:
    strategy = SimpleNamespace(broadcast=lambda share: share)
    trainer = cast(Any, SimpleNamespace(optimizers=[], strategy=strategy, should_stop=False))
    budget = TimeBudget(minutes)
    budget.load_state_dict({"spent_s": 61.0})
    budget.on_train_start(trainer, cast(Any, None))
    assert trainer.should_stop == is_over


@pytest.mark.slow
def test_a_resumed_run_has_the_rest_of_the_time(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = tiny_overrides(tmp_path, *OVERRIDES, "callbacks.time_budget.minutes=0.5", stop_at(3, signal.SIGTERM))
    with pytest.raises(SystemExit):
        train.train(compose_config(overrides))
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.stop.step=-1")
    summary = read_summary(RunFolder(tmp_path).summary)
    assert 30 <= summary["training_s"] < 40  # at the end of an epoch, this clock is looked at some ten times
    found = rates(tmp_path)
    assert all(later < earlier for earlier, later in itertools.pairwise(found))


def test_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected positive callbacks\.time_budget\.minutes, got 0"):
        TimeBudget(minutes=0)
