"""Which differences between our runs are more than what another seed would change.

Runs with the same seed share their data and the order of their samples, so they are compared in pairs. A difference is
resolved if the 95 % confidence interval of its mean over the seeds excludes 0: ``|mean| > t s / √n``, with the sample
standard deviation s of n pairs and the 97.5 % quantile t of Student's distribution with n − 1 degrees of freedom.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from src.tables.table import Measured, Table, measured, paired_differences

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Paired:
    """The difference of two entries.

    Attributes:
        row, column: indices of the entry.
        other: what is subtracted, for people.
        difference: mean and deviation over the seeds that both entries have.
        count: of these seeds.
    """

    row: int
    column: int
    other: str
    difference: Measured
    count: int

    @property
    def resolved(self) -> bool | None:
        """Whether the confidence interval excludes 0; None for one seed."""
        if self.difference.deviation is None:
            return None
        # Imported late, because it takes a second.
        from scipy.stats import t

        quantile = float(t.ppf((1 + CONFIDENCE) / 2, self.count - 1))
        return abs(self.difference.mean) > quantile * self.difference.deviation / math.sqrt(self.count)


def comparisons(table: Table) -> Iterator[Paired]:
    """Yield the differences that a table is read for.

    - Between the columns of a metric, in each row: the last column minus each other one.
    - Between a row and the one that it names (``minus``), in each column that has its metric alone or whose differences
      the table shows.
    - If no row names another, in a column alone with its metric: each entry minus the next better one, if both have
      several seeds.
    """
    columns = table.published.columns
    for metric in table.ranked_metrics():
        *others, last = table.columns_of(metric)
        for i, j in ((i, j) for i in range(len(table.entries)) for j in others):
            yield from _paired(table, (i, last), (i, j), columns[j].name)
        if not others and not any(row.minus for row in table.published.rows):
            yield from _ranking(table, last)
    shown = {column.difference for column in columns}
    for j, column in enumerate(columns):
        if column.name in shown or (column.better and table.columns_of(str(column.metric)) == [j]):
            yield from _changes(table, j)


def _ranking(table: Table, column: int) -> Iterator[Paired]:
    known = [(i, row[column].measured) for i, row in enumerate(table.entries)]
    sign = -1 if table.published.columns[column].better == "max" else 1
    order = [i for i, measured in sorted(known, key=lambda pair: sign * pair[1].mean if pair[1] else 0.0) if measured]
    for better, worse in itertools.pairwise(order):
        pairs = _paired(table, (worse, column), (better, column), ", ".join(table.labels[better]))
        yield from (paired for paired in pairs if paired.count > 1)


def _changes(table: Table, column: int) -> Iterator[Paired]:
    labels = [row.label[-1] for row in table.published.rows]
    for i, row in enumerate(table.published.rows):
        if row.minus is not None:
            yield from _paired(table, (i, column), (labels.index(row.minus), column), row.minus)


def _paired(table: Table, own: tuple[int, int], other: tuple[int, int], name: str) -> Iterator[Paired]:
    (i, j), (k, m) = own, other
    found = paired_differences(table.entries[i][j], table.entries[k][m], table.published.columns[j])
    difference = measured(found)
    if difference is not None:
        yield Paired(i, j, name, difference, len(found))
