"""Learning-rate schedules over the steps of a run.

All but `plateau` multiply the optimizer's learning rate by a factor that depends on the step alone, so that a resumed
run may be longer than the run that it continues.
"""

import math
from collections.abc import Sequence
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from src.utils.errors import check_range


def warmup_cosine(
    optimizer: Optimizer, total_steps: int | None, warmup_fraction: float = 0.05, final_fraction: float = 0.01
) -> LambdaLR:
    """Return a linear rise over the first steps, then half a cosine down to ``final_fraction`` of the learning rate.

    Args:
        optimizer: its learning rates are the peaks.
        total_steps: optimizer steps of the whole run; None for a run without an end.
        warmup_fraction: fraction of the steps over which the rate rises, in [0, 1).
        final_fraction: the rate at the end, as a fraction of the peak, in [0, 1].

    Raises:
        ValueError: if a fraction is out of its range, or the run has no end.
    """
    if not 0 <= warmup_fraction < 1:
        raise ValueError(f"expected warmup_fraction in [0, 1), got {warmup_fraction}")
    if not 0 <= final_fraction <= 1:
        raise ValueError(f"expected final_fraction in [0, 1], got {final_fraction}")
    length = _known(total_steps)
    warmup_steps = round(warmup_fraction * length)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min((step - warmup_steps) / max(length - warmup_steps, 1), 1.0)
        return half_cosine(1.0, final_fraction, progress)

    return LambdaLR(optimizer, factor)


def one_cycle(
    optimizer: Optimizer,
    total_steps: int | None,
    rise_fraction: float = 0.3,
    start_fraction: float = 0.04,
    final_fraction: float = 4e-6,
) -> LambdaLR:
    """Return half a cosine up to the learning rate, then half a cosine down (Smith and Topin, 2018).

    It is torch's OneCycleLR without its cycle of the momentum, which not every optimizer has.

    Args:
        optimizer: its learning rates are the peaks.
        total_steps: optimizer steps of the whole run; None for a run without an end.
        rise_fraction: fraction of the steps over which the rate rises, in [0, 1).
        start_fraction, final_fraction: the rates at start and end, as fractions of the peak, in [0, 1].

    Raises:
        ValueError: if a fraction is out of its range, or the run has no end.
    """
    if not 0 <= rise_fraction < 1:
        raise ValueError(f"expected rise_fraction in [0, 1), got {rise_fraction}")
    check_range(0, 1, start_fraction=start_fraction, final_fraction=final_fraction)
    length = _known(total_steps)
    peak = max(rise_fraction * length - 1, 0.0)

    def factor(step: int) -> float:
        if step < peak:
            return half_cosine(start_fraction, 1.0, step / peak)
        return half_cosine(1.0, final_fraction, min((step - peak) / max(length - 1 - peak, 1e-9), 1.0))

    return LambdaLR(optimizer, factor)


def steps(
    optimizer: Optimizer, total_steps: int | None, milestones: Sequence[float] = (0.5, 0.75), factor: float = 0.1
) -> LambdaLR:
    """Return a learning rate that is multiplied by ``factor`` at each milestone.

    Args:
        optimizer: its learning rates are those before the first milestone.
        total_steps: optimizer steps of the whole run; None for a run without an end.
        milestones: fractions of the run, each in [0, 1].
        factor: in (0, 1].

    Raises:
        ValueError: for a milestone or factor out of its range, or a run without an end.
    """
    if not all(0 <= milestone <= 1 for milestone in milestones):
        raise ValueError(f"expected milestones as fractions of the run, from 0 to 1, got {list(milestones)}")
    if not 0 < factor <= 1:
        raise ValueError(f"expected factor in (0, 1], got {factor}")
    length = _known(total_steps)
    at = [round(milestone * length) for milestone in milestones]
    return LambdaLR(optimizer, lambda step: factor ** sum(step >= milestone for milestone in at))


def constant(optimizer: Optimizer, total_steps: int | None) -> LambdaLR:
    """Return the optimizer's own learning rate at every step."""
    return LambdaLR(optimizer, lambda step: 1.0)


class Plateau(ReduceLROnPlateau):
    """Torch's ReduceLROnPlateau that knows the name of its metric.

    Attributes:
        monitor: in full, such as ``val/psnr``.
    """

    monitor: str = ""


def plateau(
    optimizer: Optimizer,
    total_steps: int | None,
    monitor: str,
    mode: Literal["min", "max"],
    factor: float = 0.1,
    patience: int = 3,
    threshold: float = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    min_lr: float = 0.0,
) -> Plateau:
    """Return a learning rate that is multiplied by ``factor`` when a metric no longer improves.

    Args:
        optimizer: its learning rates are those at the start.
        total_steps: unused; all schedules take it.
        monitor: a metric of the task's validation, in full.
        mode: whether ``max`` or ``min`` is better.
        factor: in (0, 1).
        patience: validations without an improvement before the rate falls.
        threshold: the least improvement, as a fraction of the best value (``rel``) or as a difference (``abs``).
        threshold_mode: ``rel`` or ``abs``.
        min_lr: the smallest learning rate.

    Raises:
        ValueError: for a value out of its range.
    """
    if not 0 < factor < 1:
        raise ValueError(f"expected factor in (0, 1), got {factor}")
    check_range(0, patience=patience, threshold=threshold, min_lr=min_lr)
    scheduler = Plateau(optimizer, mode, factor, patience, threshold, threshold_mode, min_lr=min_lr)
    scheduler.monitor = monitor
    return scheduler


def half_cosine(start: float, end: float, progress: float) -> float:
    """Return ``end + (start − end) (1 + cos π p) / 2`` for a progress p from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def _known(total_steps: int | None) -> int:
    """Return the length of a run; raise ValueError if it has no end."""
    if total_steps is None:
        raise ValueError(
            "expected trainer.max_epochs or trainer.max_steps >= 0, on which the schedule depends, got -1 for both; "
            "task/scheduler=none and plateau need no end"
        )
    return total_steps
