"""Numbers that other programs wrote."""

from __future__ import annotations

import math
from typing import Any

# Up to here a float, which is what a page in a browser counts with, holds every integer.
MAX_INTEGER = 2**53


def finite_number(value: Any) -> int | float | None:
    """Return ``value`` if it is a number that a float can hold and that is finite, else None."""
    try:
        is_finite = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return None
    return value if is_finite else None


def decimal(value: float, digits: int, *, sign: bool = False) -> str:
    """Return a number with so many digits behind the point; a very small one in scientific notation."""
    if value and abs(value) < 0.5 * 10**-digits:
        return f"{value:.1e}"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
