"""Format the numbers of a table."""

import math

from src.tables.published import NumberColumn
from src.tables.table import Entry, Measured
from src.tasks.metrics import decimal

NOT_RUN, NONE = "not run", "–"


def published_text(entry: Entry, column: NumberColumn, tolerance: float | None = None) -> str:
    """Return the paper's number."""
    if entry.published is None:
        return NONE
    around = "" if tolerance is None else f" ± {tolerance:g}"
    return f"{decimal(entry.published, column.digits, sign=_has_sign(entry.published, column))}{around}"


def measured_text(entry: Entry, column: NumberColumn) -> str:
    """Return our number, with its deviation if there are several seeds."""
    if entry.measured is None:
        return NOT_RUN if entry.is_ours and not entry.runs else NONE
    text = mean_text(entry.measured, column.digits, sign=_has_sign(entry.measured.mean, column))
    count, seeds = entry.measured.count, len(entry.runs)
    return text if count == seeds else f"{text} ({count} of {seeds} seeds)"


def difference_text(entry: Entry, column: NumberColumn) -> str:
    """Return ours minus the paper's."""
    return NONE if entry.difference is None else decimal(entry.difference, column.digits, sign=True)


def mean_text(measured: Measured, digits: int, *, sign: bool = False) -> str:
    """Return a mean, with its deviation if there are several seeds."""
    mean = decimal(measured.mean, digits, sign=sign)
    if measured.deviation is None:
        return mean
    deviation = decimal(measured.deviation, digits)
    if "e" in deviation and "e" not in mean:
        # More digits are easier to compare with the mean's than another notation.
        deviation = f"{measured.deviation:.{math.ceil(-math.log10(measured.deviation))}f}"
    return f"{mean} ± {deviation}"


def _has_sign(value: float, column: NumberColumn) -> bool:
    return column.difference is not None and value != 0


def heading(column: NumberColumn) -> str:
    """Return the name of a column with its unit."""
    return f"{column.name} ({column.unit})" if column.unit else column.name
