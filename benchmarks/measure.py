"""Time candidates that take turns with torch's timer; shared by the benchmarks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch.utils import benchmark

Clock = Callable[[], float]


def device_clock(device: str) -> Clock:
    """Return the clock of a device: CPU time of this process, or wall time after a GPU has finished its work."""
    return time.process_time if device == "cpu" else benchmark.timer


def times_in_turns(
    steps: dict[str, Callable[[], object]], rounds: int, clock: Clock = time.process_time
) -> dict[str, list[float]]:
    """Return the seconds of each step in each round; candidates take turns, in alternating order.

    Taking turns lets changes of the machine's speed affect all candidates equally. Two warm-up calls precede each time.
    """
    timers = {name: step_timer(step, clock) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(rounds):
        for name in list(steps)[:: 1 if round_number % 2 else -1]:
            times[name].append(timers[name].timeit(1).median)
    return times


def step_timer(step: Callable[[], object], clock: Clock = time.process_time) -> benchmark.Timer:
    """Return torch's timer of a call, with torch's present number of threads."""
    return benchmark.Timer("step()", timer=clock, globals={"step": step}, num_threads=torch.get_num_threads())


def timed(step: Callable[[], object], clock: Clock = time.process_time) -> float:
    """Return the seconds of a call that must not be repeated. (torch's timer would make two warm-up calls.)"""
    start = clock()
    step()
    return clock() - start


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Return the median of the ratios of all rounds."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))
