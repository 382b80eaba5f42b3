"""metrics.csv, and the curves in a checkpoint: every metric of a run over the steps."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.runs.folder import RunFolder
from src.utils.reading import MAX_INTEGER, reading

# Every metric by name, as (step, value).
History = dict[str, list[tuple[int, float]]]
# A row of metrics.csv: the step, and the values logged at it.
Row = tuple[int, Mapping[str, float]]
STEP = "step"
# The key of the curves among the callback states of a checkpoint.
STATE_KEY = "Curves"


def rows_text(columns: Sequence[str], rows: Iterable[Row], header: bool = False) -> str:
    """Return rows as lines of a CSV file with these columns, a value that a row lacks as an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows({**values, STEP: step} for step, values in rows)
    return text.getvalue()


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a metrics.csv; a last line without its end, left by a killed process, does not count.

    Raises:
        FileError: for a file without steps, or a line with another length than the header or with other than numbers.
    """
    with reading(path, "a metrics.csv"):
        # Of a line that was cut off, half a number looks like another number.
        complete, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
        header, *lines = list(csv.reader(complete.splitlines())) or [[STEP]]
        if STEP not in header:
            raise ValueError(f"expected a column {STEP!r}, got {', '.join(header)!r}")
        rows: list[Row] = []
        for number, cells in enumerate(lines, start=2):
            try:
                named = dict(zip(header, cells, strict=True))
                rows.append((_step(named.pop(STEP)), {name: float(cell) for name, cell in named.items() if cell}))
            except ValueError as error:
                expected = f"{len(header)} numbers or empty cells in line {number}"
                raise ValueError(f"expected {expected}, got {','.join(cells)!r}") from error
        return rows


def read_history(folder: RunFolder) -> History:
    """Return every metric over the steps; empty for a run that kept none.

    A run without a csv logger has the history that the callback Curves keeps in the last checkpoint.

    Raises:
        FileError: for a damaged file.
    """
    if not folder.metrics.is_file():
        return _history_of_checkpoint(folder.checkpoint())
    values: dict[str, dict[int, float]] = {}
    for step, row in read_rows(folder.metrics):
        for name, value in row.items():
            if name != "epoch":
                # The last value of a step counts.
                values.setdefault(name, {})[step] = value
    return {name: sorted(points.items()) for name, points in values.items()}


def curves_state(history: History, running: Mapping[str, list[float]]) -> dict[str, Any]:
    """Return the curves and the values of the current epoch so far as plain containers, for a checkpoint."""
    return {
        "history": {name: [list(point) for point in points] for name, points in history.items()},
        "running": {name: list(values) for name, values in running.items()},
    }


def read_curves_state(state: Mapping[str, Any]) -> tuple[History, dict[str, list[float]]]:
    """Return the arguments of `curves_state`."""
    history = {
        str(name): [(_step(step), float(value)) for step, value in points] for name, points in state["history"].items()
    }
    return history, {name: list(values) for name, values in state["running"].items()}


def _history_of_checkpoint(path: Path) -> History:
    if not path.is_file():
        return {}
    # Only such runs pay for the import of torch.
    from src.runs.checkpoints import read_checkpoint

    with reading(path, "a checkpoint with curves"):
        state = read_checkpoint(path).get("callbacks", {}).get(STATE_KEY)
        history = {} if state is None else read_curves_state(state)[0]
        return {name: points for name, points in history.items() if points}


def _step(value: int | str) -> int:
    """Return a number of steps that a page in a browser can count with."""
    step = int(value)
    if not -MAX_INTEGER <= step <= MAX_INTEGER:
        raise ValueError(f"expected at most {MAX_INTEGER} steps, got {value}")
    return step
