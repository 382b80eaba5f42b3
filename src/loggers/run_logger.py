"""What this project's loggers do beyond Lightning's."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class RunLogger(Protocol):
    """A logger that keeps an interrupted run as one run."""

    def describe(self, config: dict[str, Any], tags: list[str]) -> None:
        """Take the configuration, as plain values, and tags to find the run by."""

    def go_on_from(self, step: int) -> None:
        """Continue an interrupted run at ``step``; what it logged for this and later steps will be logged again."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Take the content of summary.json and write everything out."""


class LatestRow:
    """Recognises a row that is logged twice because it was already logged before a checkpoint, see `early_rows`."""

    def __init__(self) -> None:
        self._row: tuple[int | None, str] | None = None

    def comes_again(self, metrics: Mapping[str, Any], step: int | None) -> bool:
        """Return whether this row repeats the latest one, and remember it."""
        before, self._row = self._row, (step, repr(sorted(metrics.items())))  # where NaN equals NaN
        return self._row == before


def final_numbers(summary: dict[str, Any]) -> dict[str, float]:
    """Return the costs and the metrics in summary.json by name."""
    costs = {name: value for name, value in summary.items() if isinstance(value, (int, float)) and name != "seed"}
    return {**costs, **{name: value for name, value in summary["metrics"].items() if value is not None}}
