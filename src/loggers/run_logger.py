"""What this project's loggers can do beyond Lightning's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class RunLogger(Protocol):
    """A logger of one run, however often the run is interrupted."""

    def describe(self, config: dict[str, Any], tags: list[str]) -> None:
        """Take the configuration, as plain values, and the words to find the run by."""

    def go_on_from(self, step: int) -> None:
        """Prepare for ``step`` to be the next one; what an interrupted run logged of later ones comes again."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Take what summary.json holds, and write everything out."""


class LatestRow:
    """Knows a row that is logged a second time because it was logged before a checkpoint, see `early_rows`."""

    def __init__(self) -> None:
        self._row: tuple[int | None, str] | None = None

    def comes_again(self, metrics: Mapping[str, Any], step: int | None) -> bool:
        """Whether this is the latest row once more; it is the latest one from now on."""
        before, self._row = self._row, (step, repr(sorted(metrics.items())))  # where NaN equals NaN
        return self._row == before


def final_numbers(summary: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of summary.json by name: costs, and metrics under the names that they are logged by."""
    costs = {name: value for name, value in summary.items() if isinstance(value, (int, float)) and name != "seed"}
    return {**costs, **{name: value for name, value in summary["metrics"].items() if value is not None}}
