"""A grid beside a table's own, such as one of learning rates: what was varied, and the metric of each run."""

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from src.sweeps.cell import Cell
from src.sweeps.sweep import Sweep
from src.utils.errors import ConfigError
from src.utils.files import write_csv
from src.utils.reading import finite_number, reading

RATE = "task.optimizer.lr"
# Where a number comes from.
PROVENANCE = ("seed", "git_commit", "digest")
# Scores of a rate, by the values of the other parameters and by seed.
Scores = dict[tuple[str, ...], dict[str, float]]


def write_study(sweep: Sweep, cells: Iterable[Cell], path: Path) -> None:
    """Write one row per finished cell: the sweep's metric, the varied parameters, and where the number comes from.

    A run without the metric, such as one that diverged, has an empty field. Rows of other cells stay in the file; a
    cell that ran again, with a configuration that has changed, has one row.

    Raises:
        ConfigError, FileError: as `earlier_rows`.
    """
    columns, before = columns_of(sweep), earlier_rows(sweep, path)
    found = [_row(sweep, columns[0], cell) for cell in cells if cell.is_finished()]
    rows = {tuple(row[name] for name in (*sweep.varied, "seed")): row for row in [*before, *found]}
    if not rows:
        return
    ordered = sorted(rows.values(), key=lambda row: [row[name] for name in sweep.varied])
    write_csv(path, [columns, *([row[name] for name in columns] for row in ordered)])


def columns_of(sweep: Sweep) -> list[str]:
    """Return the columns of the file.

    Raises:
        ConfigError: for a sweep without a metric.
    """
    if sweep.metric is None:
        raise ConfigError("expected a sweep with a metric, got none")
    return list(dict.fromkeys([sweep.metric.name, *sweep.varied, *PROVENANCE]))


def earlier_rows(sweep: Sweep, path: Path) -> list[dict[str, str]]:
    """Return the rows of a file to which this sweep's are going to be added; none if there is no file.

    Raises:
        ConfigError: for a sweep without a metric.
        FileError: for a damaged file, or one of a sweep with another metric or other varied parameters.
    """
    columns = columns_of(sweep)
    rows = read_study(path) if path.exists() else []
    with reading(path, "a study of today's sweep file (delete it to start again)"):
        if rows and list(rows[0]) != columns:
            raise ValueError(f"expected the columns {', '.join(columns)}, got {', '.join(rows[0])}")
    return rows


def read_study(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file that `write_study` wrote.

    Raises:
        FileError: for a missing or damaged file.
    """
    with reading(path, "a study"):
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), strict=True))
        if any(None in row or None in row.values() or "digest" not in row for row in rows):
            raise ValueError("rows differ in length")
        return rows


def num_commits(path: Path) -> int:
    """Return of how many commits the rows of a file are, whose numbers may differ for that reason; 0 without a file."""
    return len({row["git_commit"] for row in read_study(path)}) if path.exists() else 0


def _row(sweep: Sweep, metric: str, cell: Cell) -> dict[str, str]:
    summary = cell.summary()
    value = finite_number(summary["metrics"].get(metric))
    varied = {name: str(cell.parameters[name]) for name in sweep.varied}
    found = {"seed": str(summary["seed"]), "git_commit": summary["git_commit"], "digest": cell.digest}
    return {metric: "" if value is None else f"{value:.6g}", **varied, **found}


def best_rates(path: Path, sweep: Sweep) -> dict[str, float]:
    """Return the learning rate of each model: the one with the best mean of the metric over the other parameters.

    Only rates that were run in every combination that any rate of the model was run in are compared; a run without the
    metric is the worst. Several seeds of a combination count as one, their mean.

    Raises:
        FileError: for a missing or damaged file.
        ConfigError: for a sweep without models, rates and a metric, or a model without such a rate.
    """
    if sweep.metric is None or not {"model", RATE} <= set(sweep.varied):
        raise ConfigError(f"expected a sweep over model and {RATE} with a metric, got {', '.join(sweep.varied)}")
    sign = 1 if sweep.metric.goal == "maximize" else -1
    others = [name for name in sweep.varied if name not in ("model", RATE)]
    scores: dict[str, dict[float, Scores]] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for row in read_study(path):
        with reading(path, "a study of learning rates"):
            value = _field(row, sweep.metric.name)
            score = sign * float(value) if value else float("-inf")
            combination = tuple(_field(row, name) for name in others)
            scores[_field(row, "model")][float(_field(row, RATE))][combination][_field(row, "seed")] = score
    return {model: _best(model, found) for model, found in scores.items()}


def _field(row: dict[str, str], name: str) -> str:
    if name not in row:
        raise ValueError(f"it has no column {name}")
    return row[name]


def _best(model: str, scores: dict[float, Scores]) -> float:
    combinations = {combination for found in scores.values() for combination in found}
    means = {
        rate: statistics.fmean(statistics.fmean(seeds.values()) for seeds in found.values())
        for rate, found in scores.items()
        if found.keys() == combinations
    }
    if not means:
        raise ConfigError(f"expected a rate of {model} that was run in all {len(combinations)} combinations, got none")
    if max(means.values()) == float("-inf"):
        raise ConfigError(f"expected a rate of {model} with the metric in all its runs, got none")
    return max(means, key=lambda rate: means[rate])
