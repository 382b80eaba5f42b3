"""The learning rate over the steps."""

from __future__ import annotations

import math

import pytest
import torch

from src.tasks.schedules import warmup_cosine


def rates(steps: int, total_steps: int, **settings: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=2.0)
    scheduler = warmup_cosine(optimizer, total_steps, **settings)
    found = []
    for _ in range(steps):
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
