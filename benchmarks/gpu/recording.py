"""Numbers that are on the disk as soon as they are known, whatever happens afterwards."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

# A step of the plan ends by itself this many seconds before it would be killed.
MARGIN_S = 8.0
MAX_REPEATS = 20


class Recorder:
    """Appends results to a file of JSON lines, times calls on a device, and knows when to stop.

    Args:
        path: of the file.
        step: the name that each line gets.
        device: "cpu" or "cuda".
        seconds: after which no further measurement starts.
        quick: whether sizes are tiny, only to show that everything runs.
    """

    def __init__(self, path: Path, step: str, device: str, seconds: float, quick: bool) -> None:
        self.path = path
        self.step = step
        self.device = device
        self.quick = quick
        self._end = time.monotonic() + seconds - MARGIN_S

    def write(self, what: str, **values: Any) -> None:
        """Append a line."""
        line = {"step": self.step, "what": what, **values}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(" ".join(f"{key}={_short(value)}" for key, value in line.items()), flush=True)

    @property
    def late(self) -> bool:
        """Whether no further measurement may start."""
        return time.monotonic() > self._end

    @contextlib.contextmanager
    def measurement(self, what: str, **about: Any) -> Iterator[dict[str, Any]]:
        """Write the numbers that the block puts into the dictionary, or its error, which ends nothing else.

        Without time left the block must not start: ask `late` first.
        """
        found: dict[str, Any] = {}
        try:
            yield found
            self.write(what, **about, **found)
        except Exception as error:
            self.write(what, **about, **found, error=f"{type(error).__name__}: {str(error)[:300]}")
            if not isinstance(error, torch.OutOfMemoryError):
                traceback.print_exc(limit=-6)
        finally:
            self.free()

    def free(self) -> None:
        """Return unused memory to the device, and forget its peak."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object]) -> float:
        """Return the wall time of one call."""
        self.synchronise()
        start = time.perf_counter()
        call()
        self.synchronise()
        return time.perf_counter() - start

    def milliseconds(self, call: Callable[[], object], budget_s: float = 1.0) -> float:
        """Return the median time of a call, of up to 20 within the budget, after two calls that warm up."""
        call()
        once = self.seconds(call)
        repeats = max(1, min(MAX_REPEATS, int(budget_s / max(once, 1e-5))))
        return 1e3 * statistics.median(self.seconds(call) for _ in range(repeats))

    def peak_gib(self) -> float | None:
        """Return the peak of allocated memory since `free`; None on a CPU."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.device == "cuda" else None


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
