"""The values of classes in files and in memory."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# How far a label may be from its value: the scale in a header of floating-point numbers turns 1 into 1.00002.
LABEL_TOLERANCE = 1e-3


def to_classes(labels: NDArray[Any], label_values: Mapping[int, int]) -> NDArray[np.uint8]:
    """Return the class in memory of each value in a file.

    Raises:
        ValueError: for a value that no class has.
    """
    classes = np.zeros(labels.shape, np.uint8)
    known = np.zeros(labels.shape, bool)
    for index, value in label_values.items():
        here = labels == value
        classes[here] = index
        known |= here
    _require_none(labels[~known], "label values", label_values.values())
    return classes


def to_labels(classes: NDArray[np.generic], label_values: Mapping[int, int]) -> NDArray[np.generic]:
    """Return the value in the files of each class in memory, in the smallest type of integers that holds all values.

    Raises:
        ValueError: for a class that has no value.
    """
    _require_none(classes[~np.isin(classes, list(label_values))], "classes", label_values)
    values = np.zeros(max(label_values) + 1, np.min_scalar_type(max(label_values.values())))
    for index, value in label_values.items():
        values[index] = value
    return values[classes]


def _require_none(unknown: NDArray[Any], what: str, known: Collection[int]) -> None:
    if unknown.size:
        raise ValueError(f"expected {what} among {sorted(known)}, got [{listed(np.unique(unknown).tolist())}]")


def snapped(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels with those that are nearly integers as integers."""
    if labels.dtype.kind in "iu":
        return labels
    nearest = np.rint(labels)
    return np.where(np.abs(labels - nearest) <= LABEL_TOLERANCE, nearest, labels)


def listed(values: Iterable[float], shown: int = 10) -> str:
    """Return the first values in a message."""
    ordered = sorted(values)
    return ", ".join(f"{value:g}" for value in ordered[:shown]) + (", …" if len(ordered) > shown else "")
