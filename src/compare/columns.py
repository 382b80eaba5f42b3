"""The columns of the table of runs: their labels, units, and whether more or less is better."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from src.compare.runs import RunRecord
from src.tasks.metrics import Metric, described, from_plain, metrics_of_config
from src.utils.reading import finite_number

GIB = 2**30


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        key: its name in filters.
        label: the header, without the unit.
        unit: the unit of its numbers; None without one.
        better: ``max``, ``min``, or None where neither is better or it is not known.
        role: ``text``, ``seed``, ``cost``, ``quality`` (always shown) or ``metric`` (shown on demand).
    """

    key: str
    label: str
    unit: str | None
    better: str | None
    role: str


COSTS = [
    Column("parameters", "parameters", None, "min", "cost"),
    Column("step_time", "time per step", "ms", "min", "cost"),
    Column("memory", "peak memory", "GiB", "min", "cost"),
    Column("total_time", "total time", "min", "min", "cost"),
]


def columns_of(runs: Sequence[RunRecord]) -> list[Column]:
    """Return the columns for which the runs have values: identity, quality, cost, then all other metrics."""
    known = list(dict.fromkeys(metric for run in runs for metric in _metrics(run)))
    names = {name for run in runs for name in run.summary["metrics"]}
    metrics = {name: described(name, known) or Metric(name) for name in names}
    # The page shows the numbers themselves, a fraction without its %.
    units = {name: (metric.unit if metric.factor == 1 else "") or None for name, metric in metrics.items()}
    columns = {name: Column(name, name, units[name], metrics[name].better, "metric") for name in names}
    monitored = {metric for run in runs if (metric := _monitor(run))}
    qualities = _qualities(columns, monitored, known)
    several = len({run.summary["experiment"] for run in runs}) > 1
    texts = ("model", *(["experiment"] if several else []), "scale", "backprop")
    return [
        *[Column(key, key, None, None, "text") for key in texts],
        Column("seed", "seed", None, None, "seed"),
        *[columns[name]._replace(role="quality") for name in qualities],
        *COSTS,
        *[columns[name] for name in sorted(names - set(qualities))],
    ]


def values_of(run: RunRecord) -> dict[str, Any]:
    """Return the run's value for each column; unknown and non-finite numbers are None."""
    summary = run.summary
    texts = {key: summary.get(key) for key in ("model", "experiment", "scale", "backprop", "seed")}
    numbers = {
        "parameters": _times(summary.get("num_parameters"), 1),
        "step_time": _times(summary.get("step_time_s"), 1000),
        "memory": _times(summary.get("peak_memory_bytes"), 1 / GIB),
        "total_time": _times(summary.get("total_time_s"), 1 / 60),
        **summary["metrics"],
    }
    return texts | {name: finite_number(value) for name, value in numbers.items()}


def _metrics(run: RunRecord) -> list[Metric]:
    """Return what is known of the run's metrics: by its summary, by its task, and the direction by its monitor."""
    known = [*from_plain(run.summary.get("metric_descriptions")), *metrics_of_config(run.config)]
    monitored = _monitor(run)
    mode = run.config["monitor"].get("mode") if monitored else None
    if monitored and mode in ("max", "min") and described(monitored, known) is None:
        known.append(Metric(_leaf(monitored), better=mode))
    return known


def _qualities(columns: Mapping[str, Column], monitored: set[str], known: Sequence[Metric]) -> list[str]:
    """Return the metrics of the test set that can be good or bad, and those that chose the best checkpoints, first."""
    tested = {name for name in columns if name.startswith("test/")}
    # Without a test (an unfinished run, test=false) the validation takes its place.
    candidates = (tested | (monitored & set(columns))) or {name for name in columns if name.startswith("val/")}
    judged = {name for name in candidates if columns[name].better} or candidates
    leaves = {_leaf(name) for name in monitored}

    def rank(name: str) -> tuple[bool, bool, int, str]:
        metric = described(name, known)
        position = known.index(metric) if metric else len(known)
        return _leaf(name) not in leaves, not name.startswith("test/"), position, name

    return sorted(judged, key=rank)


def _monitor(run: RunRecord) -> str | None:
    """Return the metric that chose the best checkpoint; None where the last one counts as best."""
    metric = run.config.get("monitor", {}).get("metric")
    return metric if isinstance(metric, str) and metric != "step" else None


def _times(value: Any, factor: float) -> float | None:
    number = finite_number(value)
    return None if number is None else number * factor


def _leaf(name: str) -> str:
    return name.rpartition("/")[2]
