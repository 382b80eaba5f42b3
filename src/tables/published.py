"""Read ``published.yaml``: the numbers of a paper's table, their source, and which of our runs match each number."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from src.runs.summary import NUMBERS
from src.tasks.metrics import CALLBACK_METRICS, TASK_METRICS, Metric, described
from src.utils.errors import ConfigError, did_you_mean
from src.utils.reading import read_yaml, reading

T = TypeVar("T")


@dataclass(frozen=True)
class NumberColumn:
    """One column of numbers; the metric's description supplies better, digits, factor and unit if they are absent.

    Attributes:
        name: the heading.
        metric: a metric in summary.json or one of its keys, such as ``num_parameters``; None for a ``difference``.
        better: ``max`` or ``min``, whichever is better; None if neither is, then the column has no ranks.
        digits: the number of decimals.
        factor: multiplies the metric, for example by 100 for per cent.
        unit: the unit of the numbers.
        match: dotted keys and values in the configuration of this column's runs, in addition to those of the row.
        difference: a column; this one shows its value minus its value in the row named by ``minus``.
    """

    name: str
    metric: str | None = None
    better: str | None = None
    digits: int = 2
    factor: float = 1.0
    unit: str = ""
    match: dict[str, Any] = field(default_factory=dict)
    difference: str | None = None


@dataclass(frozen=True)
class Row:
    """One row of numbers.

    Attributes:
        label: one cell per column of the table's head.
        values: one published number per column; None where the paper has none.
        match: dotted keys and values in the configuration of this row's runs; None for a row that is only quoted.
        quote: the line in the paper with these numbers; None if none is published.
        quoted_from: where the quote stands if not in the paper; None if it does.
        tolerance: the published ± of the values; None if there is none.
        minus: the last label cell of the row with which this one is compared.
    """

    label: tuple[str, ...]
    values: tuple[float | None, ...]
    match: dict[str, Any] | None = None
    quote: str | None = None
    quoted_from: str | None = None
    tolerance: float | None = None
    minus: str | None = None


@dataclass(frozen=True)
class Published:
    """A table.

    Attributes:
        source: where the numbers come from.
        setting: how the paper measured them.
        head: names of the columns that label a row.
        task: the task that describes the metrics, such as ``reconstruction``; None if the program is not train.py.
        here: by column of the head, the key of our configuration whose value may differ from the label.
        differs: other differences from the paper, by scale; those of ``all`` apply to every scale.
        per_sample: whether the numbers of each test sample are kept beside the results, as ``<cell>.csv``.
    """

    title: str
    source: str
    setting: str
    head: tuple[str, ...]
    columns: tuple[NumberColumn, ...]
    rows: tuple[Row, ...]
    task: str | None = None
    here: dict[str, str] = field(default_factory=dict)
    differs: dict[str, str] = field(default_factory=dict)
    per_sample: bool = False

    def entries(self) -> Iterator[tuple[int, int]]:
        """Yield the row and column index of every entry that has runs of ours."""
        for i, row in enumerate(self.rows):
            for j, column in enumerate(self.columns):
                if row.match is not None and column.metric is not None:
                    yield i, j

    def match(self, row: int, column: int) -> dict[str, Any]:
        """Return the dotted keys and values in the configuration of an entry's runs."""
        return {**(self.rows[row].match or {}), **self.columns[column].match}


def read_published(path: Path) -> Published:
    """Read a table.

    Raises:
        FileError: for a missing or damaged file.
        ConfigError: for a file that is not such a table, naming the key.
    """
    with reading(path, "published numbers"):
        content = read_yaml(path, "published numbers")
        task = content.get("task")
        if task is not None and task not in TASK_METRICS:
            raise ConfigError(f"expected task to be one of {', '.join(TASK_METRICS)} in {path}, got {task!r}")
        metrics = () if task is None else TASK_METRICS[task]
        for key, kind in {"columns": NumberColumn, "rows": Row}.items():
            items = content.get(key)
            if not isinstance(items, list) or not items:
                raise ConfigError(f"expected a list of {key} in {path}, got {items!r}")
            items = [{**_description(item, metrics), **item} if isinstance(item, dict) else item for item in items]
            content[key] = tuple(_build(kind, item, f"{key}[{i}] in {path}") for i, item in enumerate(items))
        table = _build(Published, content, str(path))
        _check(table, path)
        if task is not None:
            _check_metrics(table, (*metrics, *CALLBACK_METRICS), path)
        return table


def _description(column: dict[str, Any], metrics: tuple[Metric, ...]) -> dict[str, Any]:
    """Return what the metric's description says about a column."""
    metric = described(str(column["metric"]), metrics) if "metric" in column else None
    return {key: getattr(metric, key) for key in ("better", "digits", "factor", "unit")} if metric else {}


def _build(kind: Callable[..., T], content: Any, place: str) -> T:
    names = inspect.signature(kind).parameters
    if not isinstance(content, dict):
        raise ConfigError(f"expected keys and values for {place}, got {content!r}")
    for key in content:
        if key not in names:
            raise ConfigError(f"expected a key of {place}, got {key!r}{did_you_mean(str(key), names)}")
    missing = [name for name, p in names.items() if p.default is p.empty and name not in content]
    if missing:
        raise ConfigError(f"expected {', '.join(missing)} in {place}, got none")
    frozen = {key: tuple(value) for key, value in content.items() if key in ("head", "values")}
    if "label" in content:
        frozen["label"] = tuple(map(str, content["label"]))
    return kind(**{**content, **frozen})


def _check(table: Published, path: Path) -> None:
    names = [column.name for column in table.columns]
    for column in table.columns:
        if (column.metric is None) == (column.difference is None):
            raise ConfigError(f"expected metric or difference for column {column.name!r} in {path}, got {column}")
        if column.difference is not None and column.difference not in names:
            raise ConfigError(f"expected difference to name a column of {path}, got {column.difference!r}")
        if column.better not in (None, "max", "min"):
            raise ConfigError(f"expected better to be max or min in {path}, got {column.better!r}")
        if not isinstance(column.digits, int) or not _is_number(column.factor):
            raise ConfigError(f"expected digits and factor to be numbers in {path}, got {column}")
    labels = [row.label[-1] for row in table.rows]
    for row in table.rows:
        if len(row.label) != len(table.head) or len(row.values) != len(table.columns):
            raise ConfigError(
                f"expected {len(table.head)} labels and {len(table.columns)} values in each row of {path}, got {row}"
            )
        if not all(value is None or _is_number(value) for value in row.values):
            raise ConfigError(f"expected values to be numbers or null in {path}, got {row}")
        if row.minus is not None and labels.count(row.minus) != 1:
            raise ConfigError(f"expected minus to be the label of one row of {path}, got {row.minus!r}")
    for key in table.here:
        if key not in table.head:
            raise ConfigError(f"expected each key of here to be a column of the head of {path}, got {key!r}")


def _check_metrics(table: Published, metrics: tuple[Metric, ...], path: Path) -> None:
    """Refuse a metric that no run can have: its column would stay empty."""
    known = [*(f"test/{metric.name}" for metric in metrics), *NUMBERS]
    for name in filter(None, (column.metric for column in table.columns)):
        if name not in NUMBERS and described(name, metrics) is None:
            raise ConfigError(
                f"expected a metric of {table.task} or one of {', '.join(NUMBERS)} in {path}, got {name!r}"
                f"{did_you_mean(name, known)}"
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
