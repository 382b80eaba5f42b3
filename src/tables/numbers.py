"""Format the numbers of a table."""

from __future__ import annotations

from src.tables.published import Column
from src.tables.table import Entry

NOT_RUN, NONE = "not run", "–"


def published_text(entry: Entry, column: Column, tolerance: float | None = None) -> str:
    """Return the paper's number."""
    if entry.published is None:
        return NONE
    around = "" if tolerance is None else f" ± {tolerance:g}"
    return f"{_signed(entry.published, column)}{around}"


def measured_text(entry: Entry, column: Column) -> str:
    """Return our number, with its deviation if there are several seeds."""
    if entry.measured is None:
        return NOT_RUN if entry.is_ours and not entry.runs else NONE
    deviation = entry.measured.deviation
    around = "" if deviation is None else f" ± {number(deviation, column.digits)}"
    return f"{_signed(entry.measured.mean, column)}{around}"


def difference_text(entry: Entry, column: Column) -> str:
    """Return ours minus the paper's."""
    return NONE if entry.difference is None else number(entry.difference, column.digits, sign=True)


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """Return a number with ``digits`` decimals; a number that would round to zero in scientific notation."""
    if value and abs(value) < 0.5 * 10**-digits:
        return f"{value:.1e}"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def _signed(value: float, column: Column) -> str:
    return number(value, column.digits, sign=column.difference is not None and value != 0)


def heading(column: Column) -> str:
    """Return the name of a column with its unit."""
    return f"{column.name} ({column.unit})" if column.unit else column.name
