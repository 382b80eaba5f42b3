"""The numbers of a run as one table that survives every interruption."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from src.loggers.run_logger import LatestRow
from src.utils.files import naming, write_text
from src.utils.reading import reading

Row = Mapping[str, Any]


class CsvLogger(Logger):
    """Writes every logged row to a CSV file at once; a run that goes on continues the file of the interrupted one.

    Columns are sorted by name. A row with a new metric rewrites the file under a longer header, in one piece; any other
    row is appended. (Lightning's CSVLogger keeps up to 100 steps in memory and begins a new file for a resumed run.)

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)
        # None before the first row of this process.
        self._columns: list[str] | None = None
        self._latest = LatestRow()

    @property
    def name(self) -> str:
        """The logger's name."""
        return "csv"

    @property
    def version(self) -> int:
        """There is one file per run."""
        return 0

    @property
    def save_dir(self) -> str:
        """The folder of the file."""
        return str(self.path.parent)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Leave the configuration to config.yaml."""

    def describe(self, config: dict[str, Any], tags: list[str]) -> None:
        """Leave the configuration to config.yaml."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Leave the summary to summary.json; every row has been written."""

    @rank_zero_only
    def go_on_from(self, step: int) -> None:
        """Drop the rows of ``step`` and later, which will be logged again, and what a kill left of a last row."""
        with reading(self.path, "the metrics of a run"):
            rows = [row for row in read_rows(self.path) if int(row["step"]) < step] if self.path.exists() else []
        self._columns = sorted({name for row in rows for name in row})
        self._rewrite(rows)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write one row, unless it is the latest one again."""
        if self._latest.comes_again(metrics, step):
            return
        row = {**{name: float(value) for name, value in metrics.items()}, "step": step or 0}
        if self._columns is not None and row.keys() <= set(self._columns):
            with naming(self.path), self.path.open("a", newline="") as file:
                file.write(_lines(self._columns, [row]))
            return
        rows = [] if self._columns is None else read_rows(self.path)
        self._columns = sorted({*(self._columns or ()), *row})
        self._rewrite([*rows, row])

    def _rewrite(self, rows: Iterable[Row]) -> None:
        assert self._columns is not None
        header = _lines(self._columns, [dict(zip(self._columns, self._columns, strict=True))])
        write_text(self.path, header + _lines(self._columns, rows))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the complete rows of a file of `CsvLogger`, each without its empty cells."""
    whole, _, _ = path.read_text().rpartition("\n")
    rows = csv.DictReader(io.StringIO(whole))
    return [{name: cell for name, cell in row.items() if cell} for row in rows]


def _lines(columns: list[str], rows: Iterable[Row]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()
