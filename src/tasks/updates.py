"""A check of what updates the weights, before the data are made."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.tasks.base import Task

STEPS = 100


def check_updates(task: Task) -> LRScheduler | None:
    """Build the task's optimizer and schedule for one number, and return the schedule.

    Raises:
        ValueError: naming the section whose values its class does not accept.
    """
    optimizer = _built("task.optimizer", lambda: task.optimizer([nn.Parameter(torch.zeros(1))]))
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"expected task.optimizer to build an optimizer of torch, got {type(optimizer).__name__}")
    schedule = task.scheduler
    return None if schedule is None else _built("task.scheduler", lambda: schedule(optimizer, total_steps=STEPS))


def _built(section: str, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"expected values in {section} that its class accepts with {_given(section)}, got: {error}"
        ) from error


def _given(section: str) -> str:
    return (
        "the parameters" if section == "task.optimizer" else "the optimizer and total_steps, as those of task/scheduler"
    )
