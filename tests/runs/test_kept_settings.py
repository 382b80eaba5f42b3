"""What a resumed run may not change, because its checkpoint decides on it."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig

from src.config.checks import plain
from src.config.composition import compose_config
from src.runs.kept_settings import check_kept_settings
from src.tasks.updates import check_updates

STOPPING = "callbacks=early_stopping"


@functools.cache
def composed(*overrides: str) -> DictConfig:
    return compose_config([*overrides, "run_dir=."])


def task_of(config: DictConfig) -> SimpleNamespace:
    return SimpleNamespace(optimizer=instantiate(config.task.optimizer), scheduler=instantiate(config.task.scheduler))


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ([], ["task.optimizer.lr=1e-6"], r"expected task\.optimizer\.lr=0\.016 as .*, got .*lr=1e-06; leave it out"),
        ([], ["+task.optimizer.amsgrad=true"], r"expected task\.optimizer\.amsgrad=null .*amsgrad=True"),
        (
            ["task/optimizer=adamw", "task.optimizer.weight_decay=0.5"],
            ["task/optimizer=sgd"],
            r"expected task\.optimizer=torch\.optim\.AdamW as in the training, .*, got task\.optimizer=\S*SGD; ",
        ),
        (
            ["task/scheduler=plateau"],
            ["task/scheduler=step"],
            r"task\.scheduler=\S*plateau .*task\.scheduler=\S*steps;",
        ),
        (["task/scheduler=step"], ["task/scheduler=plateau"], r"task\.scheduler=\S*steps .*task\.scheduler=\S*plateau"),
        (
            ["task/scheduler=plateau"],
            ["task/scheduler=plateau", "task.scheduler.patience=9"],
            r"scheduler\.patience=3 ",
        ),
        (
            ["task/scheduler=plateau"],
            ["task/scheduler=plateau", "monitor.metric=val/ssim"],
            r"scheduler\.monitor=val/p",
        ),
        # Without a schedule the rate would stay at its present value, and a new one would begin at its start.
        ([], ["task.scheduler=null"], r"task\.scheduler=\S*warmup_cosine .*, got task\.scheduler=null"),
        (["task.scheduler=null"], [], r"task\.scheduler=null .*, got task\.scheduler=\S*warmup_cosine;"),
        ([STOPPING], [STOPPING, "callbacks.early_stopping.patience=9"], r"early_stopping\.patience=5 .*patience=9"),
        ([], ["callbacks=lr_finder"], r"expected callbacks\.lr_finder=null .*LRFinder"),
        (["callbacks=lr_finder"], ["callbacks=lr_finder", "callbacks.lr_finder.max_lr=2"], r"max_lr=1\.0 .*max_lr=2"),
        (["callbacks=lr_finder"], ["callbacks=lr_finder"], None),
        ([], ["task/scheduler=one_cycle"], None),
        ([], ["task.scheduler.final_fraction=0.5", "trainer.max_epochs=99"], None),
        ([], [STOPPING, "callbacks.early_stopping.patience=9"], None),
        ([STOPPING], [STOPPING, "callbacks.early_stopping={monitor:val/ssim,patience:9}"], None),
        ([STOPPING], [STOPPING, "callbacks.early_stopping.min_delta=0.5"], None),
        ([], ["logger=[]", "trainer.accumulate_grad_batches=2", "datamodule.batch_size=1", "callbacks=ema"], None),
    ],
)
def test_what_has_no_effect_is_refused(before: list[str], now: list[str], message: str | None) -> None:
    trained = composed(*before)
    schedule = check_updates(task_of(trained))  # type: ignore[arg-type]
    states = [] if schedule is None else [schedule.state_dict()]
    checkpoint = {"config": plain(trained, resolve=False), "lr_schedulers": states}
    config = composed(*now)
    with nullcontext() if message is None else pytest.raises(ValueError, match=message):
        check_kept_settings(checkpoint, config, task_of(config))  # type: ignore[arg-type]
