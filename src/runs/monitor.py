"""The metric that chooses the best checkpoint."""

from collections.abc import Iterable, Mapping
from typing import Any

from src.tasks.metrics import Metric, described
from src.utils.errors import did_you_mean

# With this name in place of a metric, the last checkpoint counts as the best one.
STEP = "step"


def check_monitor(monitor: Mapping[str, Any], metrics: Iterable[Metric]) -> None:
    """Check ``monitor.metric`` and ``monitor.mode`` against what a run measures while it trains.

    Raises:
        ValueError: for a metric that is not among ``metrics``, or a mode that prefers the worse value.
    """
    name, mode = monitor["metric"], monitor["mode"]
    known = {full: metric for metric in metrics for full in metric.full_names() if not full.startswith("test/")}
    if name != STEP and name not in known:
        raise ValueError(
            f"expected monitor.metric to be {STEP} or a metric of the task, got {name!r}"
            f"{did_you_mean(str(name), [STEP, *known])}"
        )
    metric = described(name, known.values())
    better = "max" if name == STEP else metric.better if metric else None
    if mode not in ("max", "min") or (better is not None and mode != better):
        raise ValueError(f"expected monitor.mode={better or 'max or min'} for monitor.metric={name}, got {mode!r}")
