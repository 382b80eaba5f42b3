"""A grid beside a table's own, such as one of learning rates: what was varied, and the metric of each run."""

import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from src.sweeps.cell import Cell
from src.sweeps.sweep import Sweep
from src.utils.errors import ConfigError
from src.utils.files import write_text
from src.utils.reading import finite_number, reading

RATE = "task.optimizer.lr"


def write_study(sweep: Sweep, cells: Iterable[Cell], path: Path) -> None:
    """Write one row per finished cell: the sweep's metric, the varied parameters, and where the number comes from.

    A run without the metric, such as one that diverged, has an empty field. Rows of other cells stay in the file.

    Raises:
        ConfigError: for a sweep without a metric.
        FileError: for a damaged file.
    """
    rows = {row["digest"]: row for row in read_study(path)} if path.exists() else {}
    rows |= {cell.digest: _row(sweep, cell) for cell in cells if cell.is_finished()}
    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(next(iter(rows.values()))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows.values(), key=lambda row: [row[name] for name in sweep.varied]))
    write_text(path, text.getvalue())


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


def _row(sweep: Sweep, cell: Cell) -> dict[str, str]:
    if sweep.metric is None:
        raise ConfigError("expected a sweep with a metric, got none")
    summary = cell.summary()
    value = finite_number(summary["metrics"].get(sweep.metric.name))
    varied = {name: str(cell.parameters[name]) for name in sweep.varied}
    found = {"seed": str(summary["seed"]), "git_commit": summary["git_commit"], "digest": cell.digest}
    return {sweep.metric.name: "" if value is None else f"{value:.6g}", **varied, **found}


def best_rates(path: Path, sweep: Sweep) -> dict[str, float]:
    """Return the learning rate of each model: the one with the best mean of the metric over the other parameters.

    Only rates that were run in every combination that any rate of the model was run in are compared; a run without the
    metric is the worst.

    Raises:
        FileError: for a missing or damaged file.
        ConfigError: for a sweep without models, rates and a metric.
    """
    if sweep.metric is None or not {"model", RATE} <= set(sweep.varied):
        raise ConfigError(f"expected a sweep over model and {RATE} with a metric, got {', '.join(sweep.varied)}")
    sign = 1 if sweep.metric.goal == "maximize" else -1
    scores: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_study(path):
        with reading(path, "a study of learning rates"):
            value = row[sweep.metric.name]
            score = sign * float(value) if value else float("-inf")
            scores[row["model"]][float(row[RATE])].append(score)
    return {model: _best(found) for model, found in scores.items()}


def _best(scores: dict[float, list[float]]) -> float:
    most = max(map(len, scores.values()))
    complete = {rate: statistics.fmean(found) for rate, found in scores.items() if len(found) == most}
    return max(complete, key=lambda rate: complete[rate])
