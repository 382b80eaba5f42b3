"""Checks of the values of a volume."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def count_infinite(voxels: NDArray[Any]) -> int:
    """Return how many values are infinite or NaN in single precision."""
    with np.errstate(over="ignore"):  # too large values become infinite, and are counted
        return int(np.count_nonzero(~np.isfinite(voxels.astype(np.float32, copy=False))))
