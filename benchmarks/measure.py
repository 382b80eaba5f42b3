"""What the benchmarks share: CPU time of candidates that take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def times_in_turns(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds per step and round; within a round the candidates take turns, in alternating order."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()  # warm up
    for round_number in range(rounds):
        for name in list(steps)[:: 1 if round_number % 2 else -1]:
            times[name].append(timed(steps[name]))
    return times


def timed(step: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    step()
    return time.process_time() - start


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))
