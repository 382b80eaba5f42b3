"""A loss that is not finite is refused at once on a CPU, and one step later where a check would wait."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from src.tasks.finite_loss import FiniteLoss, NonFiniteLossError


class OnGpu(Tensor):
    """A tensor that says it is on a GPU, whose copy is there at once."""

    is_cuda = True  # type: ignore[assignment]


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.tasks.finite_loss.HostCopy", lambda loss: type("Copy", (), {"wait": lambda _: loss})())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_on_a_cpu_at_once(value: float) -> None:
    losses = FiniteLoss()
    losses.check(torch.tensor(1.0), "step 0")
    with pytest.raises(NonFiniteLossError, match=r"got (nan|inf) in step 1\. Possible remedies"):
        losses.check(torch.tensor(value), "step 1")
    losses.finish()


@pytest.mark.usefixtures("no_waiting")
def test_on_a_gpu_in_the_next_step_or_at_the_end() -> None:
    good, bad = (torch.tensor(value).as_subclass(OnGpu) for value in (1.0, float("nan")))
    losses = FiniteLoss()
    losses.check(good, "step 0")
    losses.check(bad, "step 1")
    with pytest.raises(NonFiniteLossError, match="in step 1"):
        losses.check(good, "step 2")
    losses.finish()
    losses.check(bad, "step 3")
    with pytest.raises(NonFiniteLossError, match="in step 3"):
        losses.finish()
