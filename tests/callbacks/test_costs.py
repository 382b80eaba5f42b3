"""Time and memory of a training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule

from src.callbacks import peak_memory, step_time
from src.callbacks.peak_memory import PeakMemory
from src.callbacks.step_time import StepTime


def test_costs_go_on_after_a_resume() -> None:
    first, second = StepTime(), StepTime()
    first._seconds = [1.0, 2.0, 6.0]
    second.load_state_dict(first.state_dict())
    assert second.summary(None)["step_time_s"] == 2.0  # type: ignore[arg-type]
    peak, after = PeakMemory(), PeakMemory()
    peak.peak_bytes = 2**50
    after.load_state_dict(peak.state_dict())
    module = LightningModule()
    after.on_train_epoch_end(SimpleNamespace(world_size=1), module)  # type: ignore[arg-type]
    assert after.peak_bytes == 2**50


def test_costs_of_another_kind_of_device_do_not_go_on() -> None:
    times, peak, module = StepTime(), PeakMemory(), LightningModule()
    times.load_state_dict({"seconds": [9.0], "epoch_start": 1, "device": "cuda"})
    peak.load_state_dict({"peak_bytes": 2**50, "kind": "cuda_allocated"})
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")), world_size=1)
    times.on_train_start(trainer, module)
    peak.on_train_start(trainer, module)
    peak.on_train_epoch_end(trainer, module)
    assert times.summary(trainer)["step_time_s"] is None and times.state_dict()["device"] == "cpu"
    found = peak.summary(trainer)
    assert found["peak_memory_kind"] == "process_resident" and 0 < found["peak_memory_bytes"] < 2**50


def test_the_peak_is_that_of_the_largest_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "log_reduced", lambda module, values, by: {"memory/peak_gib": torch.tensor(2e6)})
    peak = PeakMemory()
    peak.on_train_epoch_end(SimpleNamespace(world_size=2), LightningModule())  # type: ignore[arg-type]
    assert peak.peak_bytes == 2e6 * 2**30


def test_a_peak_that_others_may_have_reached_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = {"now": 100, "after a reset": 100}
    monkeypatch.setattr(peak_memory, "forget_peak", lambda: marks["after a reset"])
    monkeypatch.setattr(peak_memory, "peak_resident_bytes", lambda: marks["now"])
    logged: list[float] = []
    monkeypatch.setattr(
        peak_memory, "log_reduced", lambda module, values, by: logged.append(2**30 * values["memory/peak_gib"])
    )
    trainer: Any = SimpleNamespace(world_size=1, strategy=SimpleNamespace(root_device=torch.device("cpu")))
    module = LightningModule()
    PeakMemory()
    second = PeakMemory()
    second.on_train_epoch_end(trainer, module)
    assert math.isnan(logged[0]) and second.summary(trainer)["peak_memory_bytes"] is None
    marks["now"] = 101
    second.on_train_epoch_end(trainer, module)
    assert logged[1] == second.summary(trainer)["peak_memory_bytes"] == 101
    marks.update({"now": 50, "after a reset": 0})
    third = PeakMemory()
    third.on_train_epoch_end(trainer, module)
    assert third.summary(trainer)["peak_memory_bytes"] == 50


def train_batches(timer: StepTime, module: Any, indices: Iterable[int], accumulate: int = 1, last: int = -1) -> None:
    for index in indices:
        trainer: Any = SimpleNamespace(is_last_batch=index == last, accumulate_grad_batches=accumulate)
        timer.on_train_batch_start(trainer, module)
        timer.on_train_batch_end(trainer, module, None, None, index)


def test_a_step_has_all_batches_of_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 10.0, 12.0, 20.0, 24.0])
    monkeypatch.setattr(step_time.time, "perf_counter", lambda: next(times))
    timer, module = StepTime(), SimpleNamespace(device=torch.device("cpu"))
    train_batches(timer, module, range(3), accumulate=2, last=2)
    assert timer._seconds == [3.0, 4.0]


def test_batches_without_an_update_are_no_step() -> None:
    timer, module = StepTime(), SimpleNamespace(device=torch.device("cpu"))
    for _ in range(2):  # the first time, the training ends here
        timer.on_train_epoch_start(None, module)  # type: ignore[arg-type]
        train_batches(timer, module, [0], accumulate=2)
        assert timer.summary(None)["step_time_s"] is None  # type: ignore[arg-type]


def test_steps_on_a_gpu_are_timed_by_events_that_are_read_when_they_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        made = 0
        reached = 0

        def __init__(self, enable_timing: bool) -> None:
            Event.made += 1
            self.number = Event.made

        def record(self, _stream: None) -> None:
            pass

        def query(self) -> bool:
            return self.number <= Event.reached

        def synchronize(self) -> None:
            Event.reached = max(Event.reached, self.number)

        def elapsed_time(self, end: Event) -> float:
            assert end.query()
            return 1000.0 * end.number

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: None)
    timer, module = StepTime(), SimpleNamespace(device=torch.device("cuda"))
    train_batches(timer, module, range(3))
    assert timer._seconds == []
    Event.reached = 4
    train_batches(timer, module, [3])
    assert timer._seconds == [2.0, 4.0]
    assert timer.summary(None)["step_time_s"] == 5.0  # type: ignore[arg-type]
    assert timer._seconds == [2.0, 4.0, 6.0, 8.0]
