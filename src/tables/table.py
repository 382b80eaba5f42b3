"""Compare a published table with our runs: means, deviations, differences and ranks."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from src.tables.published import NumberColumn, Published
from src.tables.results import describe, fits
from src.tasks.metrics import decimal
from src.utils.errors import ConfigError


@dataclass(frozen=True)
class Measured:
    """Mean and sample standard deviation of a number over ``count`` seeds; the deviation of one seed is None."""

    mean: float
    deviation: float | None
    count: int


@dataclass
class Entry:
    """One number of the table.

    Attributes:
        published: the paper's number.
        measured: our number; None if not run.
        is_ours: whether the sweep has runs for this entry.
        runs: the results of our runs, one per seed.
        ranks: rank of the paper's number and of ours among the metric's entries that have both; 1 is the best.
    """

    published: float | None
    measured: Measured | None
    is_ours: bool
    runs: list[dict[str, Any]] = field(default_factory=list)
    ranks: tuple[int, int] | None = None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        if self.published is None or self.measured is None:
            return None
        return self.measured.mean - self.published

    def number(self, ours: bool) -> float | None:
        """Return our number or the paper's."""
        if not ours:
            return self.published
        return None if self.measured is None else self.measured.mean


@dataclass
class Table:
    """A published table and our runs.

    Attributes:
        scale: the scale of our runs.
        changes: other values in which our runs differ from the sweep file.
        entries: by row and column.
        labels: of the rows, with the values that differ here.
    """

    published: Published
    scale: str
    changes: tuple[str, ...]
    entries: list[list[Entry]]
    labels: list[tuple[str, ...]]

    @property
    def results(self) -> list[dict[str, Any]]:
        """The results behind the entries, without repeats."""
        return list({id(run): run for row in self.entries for entry in row for run in entry.runs}.values())

    def columns_of(self, metric: str) -> list[int]:
        """Return the columns of a metric."""
        return [j for j, column in enumerate(self.published.columns) if column.metric == metric]

    def ranked_metrics(self) -> list[str]:
        """Return the metrics with a direction, in the order of their columns."""
        return list(dict.fromkeys(c.metric for c in self.published.columns if c.metric is not None and c.better))

    def best_in_row(self, row: int, metric: str, ours: bool) -> list[int]:
        """Return the best columns of a row, several if they print alike; none unless all have a number there."""
        columns = self.columns_of(metric)
        numbers = [number for j in columns if (number := self.entries[row][j].number(ours)) is not None]
        if len(columns) < 2 or len(numbers) < len(columns):
            return []
        better, digits = self.published.columns[columns[0]].better, self.published.columns[columns[0]].digits
        best = decimal(max(numbers) if better == "max" else min(numbers), digits)
        return [j for j, number in zip(columns, numbers, strict=True) if decimal(number, digits) == best]


def make_table(published: Published, results: list[dict[str, Any]], scale: str, changes: Sequence[str] = ()) -> Table:
    """Put our results into a published table.

    Raises:
        ConfigError: if an entry has two results of one seed.
    """
    described = [(describe(result["model"], result["config"]), result) for result in results]
    entries = [[Entry(value, None, False) for value in row.values] for row in published.rows]
    labels = [list(row.label) for row in published.rows]
    for i, j in published.entries():
        entry = entries[i][j]
        entry.is_ours = True
        entry.runs = [result for description, result in described if fits(description, published.match(i, j))]
        _check_seeds(entry, labels[i])
        entry.measured = measured([value_of(run, published.columns[j]) for run in entry.runs])
        for key, config_key in published.here.items():
            position = published.head.index(key)
            original = published.rows[i].label[position]
            here = {str(describe("", run["config"]).get(config_key)) for run in entry.runs} - {original}
            if here:
                labels[i][position] = f"{original} ({', '.join(sorted(here))} here)"
    _fill_differences(published, entries)
    table = Table(published, scale, tuple(changes), entries, [tuple(label) for label in labels])
    for metric in table.ranked_metrics():
        _rank(table, metric)
    return table


def _check_seeds(entry: Entry, label: Sequence[str]) -> None:
    seed, count = max(Counter(run["seed"] for run in entry.runs).items(), key=lambda pair: pair[1], default=(None, 0))
    if count > 1:
        cells = ", ".join(str(run["cell"]) for run in entry.runs if run["seed"] == seed)
        raise ConfigError(f"expected one result of seed {seed} for the row {', '.join(label)}, got {cells}")


def value_of(run: dict[str, Any], column: NumberColumn) -> float | None:
    """Return the number that a column shows of a run; None if the run has no finite one."""
    value = run["metrics"].get(column.metric, run.get(str(column.metric)))
    return None if value is None or not math.isfinite(value) else column.factor * value


def paired_differences(own: Entry, other: Entry, column: NumberColumn) -> list[float]:
    """Return the number of one entry minus that of the other, for each seed that both have."""
    values = [{run["seed"]: value_of(run, column) for run in entry.runs} for entry in (own, other)]
    pairs = [(values[0][seed], values[1].get(seed)) for seed in values[0]]
    return [first - second for first, second in pairs if first is not None and second is not None]


def measured(values: Sequence[float | None]) -> Measured | None:
    """Return mean and deviation of the known numbers; None if there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Measured(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def _fill_differences(published: Published, entries: list[list[Entry]]) -> None:
    names = [column.name for column in published.columns]
    labels = [row.label[-1] for row in published.rows]
    for j, column in enumerate(published.columns):
        if column.difference is None:
            continue
        of = names.index(column.difference)
        for i, row in enumerate(published.rows):
            if row.minus is None or row.match is None:
                continue
            entries[i][j].is_ours = True
            own, other = entries[i][of], entries[labels.index(row.minus)][of]
            entries[i][j].runs = own.runs if other.runs else []
            entries[i][j].measured = measured(paired_differences(own, other, published.columns[of]))


def _rank(table: Table, metric: str) -> None:
    columns = table.columns_of(metric)
    sign = -1 if table.published.columns[columns[0]].better == "max" else 1
    both = [
        (entry, sign * entry.published, sign * entry.measured.mean)
        for row in table.entries
        for entry in (row[j] for j in columns)
        if entry.published is not None and entry.measured is not None
    ]
    if len(both) < 2:
        return
    for entry, published, measured in both:
        entry.ranks = (1 + sum(p < published for _, p, _ in both), 1 + sum(m < measured for _, _, m in both))
