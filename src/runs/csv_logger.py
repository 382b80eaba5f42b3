"""The numbers of a run as one table that survives every interruption."""

from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from src.loggers.run_logger import LatestRow
from src.runs.history import STEP, Row, read_rows, rows_text
from src.utils.files import naming, write_text


class CsvLogger(Logger):
    """Writes every logged row to the CSV file ``path`` immediately; a resumed run continues the file.

    Columns are sorted by name. A row with a new metric rewrites the file with a longer header, atomically; any other
    row is appended. (Lightning's CSVLogger keeps up to 100 steps in memory and begins a new file for a resumed run.)
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
        """Do nothing: config.yaml has the configuration."""

    def describe(self, config: dict[str, Any], tags: list[str]) -> None:
        """Do nothing: config.yaml has the configuration."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Do nothing: every row has been written."""

    @rank_zero_only
    def go_on_from(self, step: int) -> None:
        """Drop the rows of ``step`` and later, which will be logged again, and an incomplete last row."""
        self._rewrite([row for row in read_rows(self.path) if row[0] < step] if self.path.exists() else [])

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write one row, unless it repeats the latest one."""
        if self._latest.comes_again(metrics, step):
            return
        row = (step or 0, {name: float(value) for name, value in metrics.items() if name != STEP})
        if self._columns is not None and row[1].keys() <= set(self._columns):
            with naming(self.path), self.path.open("a", newline="") as file:
                file.write(rows_text(self._columns, [row]))
        else:
            self._rewrite([*([] if self._columns is None else read_rows(self.path)), row])

    def _rewrite(self, rows: Iterable[Row]) -> None:
        rows = list(rows)
        self._columns = sorted({STEP, *(self._columns or ()), *(name for _, values in rows for name in values)})
        write_text(self.path, rows_text(self._columns, rows, header=True))
