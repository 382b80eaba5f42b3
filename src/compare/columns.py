"""The columns of the table of runs: what they are called, in which unit, and whether more is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from src.compare.runs import RunRecord
from src.utils.reading import finite_number

GIB = 2**30
# By the last part of a metric's name. The monitored metric says itself which way is better.
HIGHER_IS_BETTER = ("psnr", "ssim", "accuracy", "dice", "sensitivity", "haar_overlap")
LOWER_IS_BETTER = (
    *("bits_per_dim", "hausdorff95", "loss", "reconstruction_error", "reconstruction_error_max"),
    *("invertibility_error", "convolution_ms", "fourier_ms", "inverse_ms", "logdet_ms"),
)
# What a run says of its monitored metric: max or min.
Modes = dict[str, str | None]
UNITS = {"ms": "ms", "s": "s", "gib": "GiB"}


class Column(NamedTuple):
    """One column.

    Attributes:
        key: what filters call it.
        label: of the header, without the unit.
        unit: of its numbers; None without one.
        better: ``max``, ``min``, or None where neither is better or nobody said.
        role: ``text``, ``seed``, ``cost``, ``quality`` (always shown) or ``metric`` (shown on demand).
    """

    key: str
    label: str
    unit: str | None
    better: str | None
    role: str


TEXTS = [Column(key, key, None, None, "text") for key in ("model", "experiment", "scale", "backprop")]
SEED = Column("seed", "seed", None, None, "seed")
COSTS = [
    Column("parameters", "parameters", None, "min", "cost"),
    Column("step_time", "time per step", "ms", "min", "cost"),
    Column("memory", "peak memory", "GiB", "min", "cost"),
    Column("total_time", "total time", "min", "min", "cost"),
]


def columns_of(runs: Sequence[RunRecord]) -> list[Column]:
    """Return the columns that the runs can fill: what they are, their quality, their cost, then all other metrics."""
    modes = {_leaf(metric): _mode(run) for run in runs if (metric := _monitor(run))}
    names = {name for run in runs for name in run.summary["metrics"]}
    qualities = _qualities(runs, names, modes)
    others = sorted(names - set(qualities))
    several = len({run.summary["experiment"] for run in runs}) > 1
    return [
        *[column for column in TEXTS if several or column.key != "experiment"],
        SEED,
        *[Column(name, name, _unit(name), _better(name, modes), "quality") for name in qualities],
        *COSTS,
        *[Column(name, name, _unit(name), _better(name, modes), "metric") for name in others],
    ]


def values_of(run: RunRecord) -> dict[str, Any]:
    """Return the run's value for each column; a number that is not finite, as one that is not known, is None."""
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


def _qualities(runs: Sequence[RunRecord], names: set[str], modes: Modes) -> list[str]:
    """The metrics of the test set that can be good or bad and those that chose the best checkpoints, these first."""
    monitored = {metric for run in runs if (metric := _monitor(run))} & names
    tested = {name for name in names if name.startswith("test/")}
    # Without a test (an unfinished run, test=false) the validation has to do.
    candidates = (tested | monitored) or {name for name in names if name.startswith("val/")}
    judged = {name for name in candidates if _better(name, modes)} or candidates
    return sorted(judged, key=lambda n: (_leaf(n) not in modes, not n.startswith("test/"), _rank(n), n))


def _monitor(run: RunRecord) -> str | None:
    """The metric that chose the best checkpoint; None where the last one counts as best (monitor.metric=step)."""
    metric = run.config.get("monitor", {}).get("metric")
    return metric if isinstance(metric, str) and metric != "step" else None


def _mode(run: RunRecord) -> str | None:
    mode = run.config["monitor"].get("mode")
    return mode if mode in ("max", "min") else None


def _times(value: Any, factor: float) -> float | None:
    number = finite_number(value)
    return None if number is None else number * factor


def _leaf(name: str) -> str:
    return name.rpartition("/")[2]


def _known(name: str, qualities: Sequence[str]) -> int | None:
    """Position of a metric among named qualities; of one per region (``dice_wt``), that of its quality."""
    leaf = _leaf(name)
    per_region = {"dice", "sensitivity", "hausdorff95"}
    for position, quality in enumerate(qualities):
        if leaf == quality or (quality in per_region and leaf.startswith(f"{quality}_")):
            return position
    return None


def _rank(name: str) -> int:
    """Named qualities before losses and errors, and those before what is neither good nor bad."""
    position = _known(name, (*HIGHER_IS_BETTER, *LOWER_IS_BETTER))
    return len(HIGHER_IS_BETTER) + len(LOWER_IS_BETTER) if position is None else position


def _better(name: str, modes: Modes) -> str | None:
    if _known(name, HIGHER_IS_BETTER) is not None:
        return "max"
    lower = _known(name, LOWER_IS_BETTER) is not None or name.startswith(("time/", "memory/"))
    return modes.get(_leaf(name), "min" if lower else None)


def _unit(name: str) -> str | None:
    leaf = _leaf(name)
    if leaf.startswith("psnr"):
        return "dB"
    return "bits/dim" if leaf == "bits_per_dim" else UNITS.get(leaf.rpartition("_")[2])
