"""A table that is written at its end, without losing the rows before it if it is interrupted."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from src.utils.files import write_csv

Row = list[object]


class TableFile:
    """A CSV file with a row for each image. Until all are there, they are kept in ``<name>.part``, line by line.

    Args:
        path: of the CSV file.
        columns: their names, without the first one, which names the image.

    Attributes:
        part: the file of the rows before the table is written.
        rows: the values of each row by its name, those that an interrupted prediction left included.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = columns
        self.part = path.with_name(f"{path.name}.part")
        self.rows = _kept_rows(self.part)

    def add(self, name: str, values: Row) -> None:
        """Add a row, and keep it."""
        with self.part.open("a", encoding="utf-8") as file:
            # The newline comes first: the process before this one may have been killed within its last line.
            file.write(f"\n{json.dumps([name, *values])}")
        self.rows[name] = values

    def write(self, names: Iterable[str]) -> None:
        """Write the table with the rows of these names that there are, in this order."""
        rows = [[name, *self.rows[name]] for name in names if name in self.rows]
        write_csv(self.path, [["file", *self.columns], *rows])
        self.part.unlink(missing_ok=True)

    def remove(self) -> None:
        """Begin anew, without a table."""
        self.path.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)
        self.rows.clear()


def _kept_rows(part: Path) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for line in part.read_text(encoding="utf-8").splitlines() if part.is_file() else []:
        with suppress(json.JSONDecodeError):  # a line that was not finished
            name, *values = json.loads(line)
            rows[name] = values
    return rows
