"""The learning rate over the steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from src.tasks.schedules import constant, one_cycle, plateau, steps, warmup_cosine


def some_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=2.0)


def rates(num_steps: int, total_steps: int | None, make: Any = warmup_cosine, **settings: Any) -> list[float]:
    optimizer = some_optimizer()
    return rates_of(make(optimizer, total_steps, **settings), optimizer, num_steps)


def rates_of(scheduler: Any, optimizer: torch.optim.Optimizer, num_steps: int) -> list[float]:
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_rises_linearly_then_falls_as_half_a_cosine() -> None:
    found = rates(20, 20, warmup_fraction=0.2, final_fraction=0.1)
    assert found[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    expected = [2 * (0.1 + 0.9 * (1 + math.cos(math.pi * k / 16)) / 2) for k in range(16)]
    assert found[4:] == pytest.approx(expected)


def test_stays_at_the_end_when_a_run_goes_on() -> None:
    assert rates(12, 8, warmup_fraction=0.0, final_fraction=0.25)[8:] == pytest.approx([0.5] * 4)


@pytest.mark.parametrize("settings", [{"warmup_fraction": 1.0}, {"warmup_fraction": -0.1}, {"final_fraction": 1.5}])
def test_fractions_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        rates(1, 10, **settings)


@pytest.mark.parametrize("total", [7, 30, 101])
def test_one_cycle_is_that_of_torch(total: int) -> None:
    optimizer = some_optimizer()
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2.0, total, cycle_momentum=False)
    expected = []
    for step in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < total - 1:
            torchs.step()
    assert rates(total, total, one_cycle) == pytest.approx(expected)
    assert rates(total + 3, total, one_cycle)[total:] == pytest.approx([2 * 4e-6] * 3), "where a run goes on"


def test_steps_are_those_of_torch() -> None:
    optimizer = some_optimizer()
    torchs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [8, 15], gamma=0.3)
    expected = rates_of(torchs, optimizer, 20)
    assert rates(20, 20, steps, milestones=[0.4, 0.75], factor=0.3) == pytest.approx(expected)


def test_without_a_schedule_the_rate_is_constant() -> None:
    assert rates(5, 3, constant) == rates(5, None, constant) == [2.0] * 5


@pytest.mark.parametrize("make", [warmup_cosine, one_cycle, steps])
def test_fractions_of_a_run_without_an_end_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"trainer\.max_epochs or trainer\.max_steps >= 0, .* got -1 for both"):
        make(some_optimizer(), None)


def test_a_plateau_lowers_the_rate_after_validations_without_improvement() -> None:
    optimizer = some_optimizer()
    scheduler = plateau(optimizer, 100, "val/psnr", "max", factor=0.5, patience=1, threshold=1.0, threshold_mode="abs")
    found = []
    for value in (10.0, 10.5, 10.9, 12.0, 12.5, 12.9):
        scheduler.step(value)
        found.append(optimizer.param_groups[0]["lr"])
    assert scheduler.monitor == "val/psnr" and found == [2.0, 2.0, 1.0, 1.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (one_cycle, {"rise_fraction": 1.0}),
        (one_cycle, {"start_fraction": -1}),
        (steps, {"milestones": [30]}),
        (steps, {"factor": 0}),
        (plateau, {"monitor": "val/psnr", "mode": "max", "factor": 1.0}),
        (plateau, {"monitor": "val/psnr", "mode": "max", "patience": -1}),
    ],
)
def test_values_out_of_range_are_refused(make: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"expected {list(settings)[-1]}"):
        rates(1, 10, make, **settings)
