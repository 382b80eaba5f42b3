"""The metrics by which a run chooses the best checkpoint, lowers its learning rate, and stops early."""

from collections.abc import Iterable, Mapping, Sequence

from omegaconf import DictConfig, OmegaConf

from src.tasks.metrics import Metric
from src.utils.errors import did_you_mean

# With this name in place of a metric, the last checkpoint counts as the best one.
STEP = "step"
LATEST = Metric(STEP, better="max")


def check_monitors(config: DictConfig, metrics: Sequence[Metric], of_task: Sequence[Metric]) -> None:
    """Check ``monitor``, the callback ``early_stopping`` and a schedule with a monitor.

    Args:
        config: of the whole run.
        metrics: what it measures.
        of_task: those of the task, by whose validation a schedule goes.

    Raises:
        ValueError: for a metric that is not measured, or a mode that prefers the worse value.
    """
    measured = names(metrics)
    check_monitor("monitor.metric", config.monitor.metric, config.monitor.mode, {STEP: LATEST, **measured})
    validated = {full: metric for full, metric in names(of_task).items() if full.startswith("val/")}
    for place, known in {"task.scheduler": validated, "callbacks.early_stopping": measured}.items():
        node = OmegaConf.select(config, place)
        if node is not None and "monitor" in node:
            check_monitor(f"{place}.monitor", node.monitor, node.get("mode", "min"), known)


def names(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """Return the metrics that a run measures while it trains by their full names."""
    return {full: metric for metric in metrics for full in metric.full_names() if not full.startswith("test/")}


def check_monitor(key: str, name: str, mode: str, known: Mapping[str, Metric]) -> None:
    """Check the metric ``name`` and the ``mode`` of the monitor at ``key``.

    Raises:
        ValueError: for a metric that is not among those ``known``, or a mode that prefers the worse value.
    """
    if name not in known:
        raise ValueError(
            f"expected {key} to be a metric that the run measures, got {name!r}{did_you_mean(str(name), known)}"
        )
    better, mode_key = known[name].better, f"{key.rpartition('.')[0]}.mode"
    if mode not in ("max", "min") or (better is not None and mode != better):
        raise ValueError(f"expected {mode_key}={better or 'max or min'} for {key}={name}, got {mode!r}")
