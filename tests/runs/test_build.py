"""From a configuration to the objects of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import train
from src.config.composition import compose_config
from src.runs.checkpoints import find_checkpoint, read_checkpoint
from tests.fakes import tiny_overrides


@pytest.mark.parametrize(("end", "steps"), [("trainer.max_epochs=3", 6), ("+trainer.max_steps=5", 5)])
def test_the_last_step_is_the_best_where_it_counts_as_that(end: str, steps: int, tmp_path: Path) -> None:
    seldom = ["trainer.max_epochs=9", end, "trainer.check_val_every_n_epoch=2", "test=false", "~callbacks.curves"]
    monitor = ["monitor.metric=step", "monitor.mode=max"]
    summary = train.train(compose_config(tiny_overrides(tmp_path, *seldom, *monitor)))
    best = find_checkpoint(tmp_path, "best")
    assert summary["checkpoint"] == str(best) and read_checkpoint(best)["global_step"] == steps
