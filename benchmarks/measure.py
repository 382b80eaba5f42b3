"""What the benchmarks share: times of candidates that take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

Clock = Callable[[], float]


def device_clock(device: str) -> Clock:
    """The clock of a device: CPU time of this process, or wall time once a GPU has done what it was given."""
    if device == "cpu":
        return time.process_time

    def clock() -> float:
        import torch

        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def times_in_turns(
    steps: dict[str, Callable[[], None]], rounds: int, clock: Clock = time.process_time
) -> dict[str, list[float]]:
    """Seconds per step and round; within a round the candidates take turns, in alternating order."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()  # warm up
    for round_number in range(rounds):
        for name in list(steps)[:: 1 if round_number % 2 else -1]:
            times[name].append(timed(steps[name], clock))
    return times


def timed(step: Callable[[], object], clock: Clock = time.process_time) -> float:
    """Seconds of one call, by default of CPU time."""
    start = clock()
    step()
    return clock() - start


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))
