"""The values of classes in files."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def as_labels(classes: NDArray[np.generic], label_values: Mapping[int, int]) -> NDArray[np.generic]:
    """Return the value in the files of each class in memory, in the smallest type of integers that holds all values.

    Raises:
        ValueError: for a class that has no value.
    """
    found = set(np.unique(classes).tolist())
    if not found <= set(label_values):
        raise ValueError(f"expected classes among {sorted(label_values)}, got {sorted(found)}")
    values = np.zeros(max(label_values) + 1, np.min_scalar_type(max(label_values.values())))
    for name, value in label_values.items():
        values[name] = value
    return values[classes]
