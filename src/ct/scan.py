"""A measured parallel-beam scan: counts, flat and dark fields, angles, and the line integrals that they come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Scan:
    """What a detector counted.

    Attributes:
        counts: (views, rows, pixels); an array or anything that is sliced like one and read when it is sliced.
        angles_rad: of the views, (views,).
        flats: counts without the object, (n, rows, pixels); None if `counts` are line integrals already.
        darks: counts without the beam, (n, rows, pixels); None for none.
        source: where the counts come from, for messages.

    Raises:
        ValueError: for shapes that do not fit, or angles that are not finite.
    """

    counts: Any
    angles_rad: NDArray[np.float64]
    flats: Any = None
    darks: Any = None
    source: str = "the scan"

    def __post_init__(self) -> None:
        shape = tuple(self.counts.shape)
        if len(shape) != 3 or 0 in shape:
            raise ValueError(f"expected projections of shape (views, rows, pixels), got {shape} in {self.source}")
        angles = np.asarray(self.angles_rad, dtype=np.float64)
        if angles.shape != shape[:1] or not np.isfinite(angles).all():
            raise ValueError(
                f"expected a finite angle for each of {shape[0]} views, got angles of shape {angles.shape} "
                f"for {self.source}"
            )
        object.__setattr__(self, "angles_rad", angles)
        for name in ("flats", "darks"):
            field = getattr(self, name)
            if field is not None and (len(field.shape) != 3 or tuple(field.shape[1:]) != shape[1:] or not len(field)):
                raise ValueError(
                    f"expected {name} of shape (n, {shape[1]}, {shape[2]}), got {tuple(field.shape)} for {self.source}"
                )
        if self.darks is not None and self.flats is None:
            raise ValueError(f"expected flats beside the darks, got none for {self.source}")

    @property
    def num_rows(self) -> int:
        """Rows of the detector, one for each slice."""
        return int(self.counts.shape[1])

    def line_integrals(self, rows: slice, *, min_transmission: float | None = None) -> Array:
        """Return −log((counts − dark) / (flat − dark)), the flats and darks averaged: (rows, views, pixels).

        Args:
            rows: of the detector.
            min_transmission: smaller shares of the beam, which dead pixels and noise make, are raised to this.

        Raises:
            ValueError: for values that have no logarithm, without `min_transmission`, and for values that are no
                numbers.
        """
        counts = np.asarray(self.counts[:, rows], dtype=np.float32).transpose(1, 0, 2)
        if self.flats is None:
            self._check_finite(counts, rows)
            return np.ascontiguousarray(counts)
        flat = _mean(self.flats, rows)
        dark = 0.0 if self.darks is None else _mean(self.darks, rows)
        if ((flat - dark) <= 0).any():
            number = int(((flat - dark) <= 0).sum())
            raise ValueError(
                f"expected flats above the darks, got {number} pixels that are not, in rows "
                f"{_span(rows, self.num_rows)} of {self.source}"
            )
        transmission = (counts - dark) / (flat - dark)
        self._check_finite(transmission, rows)
        if min_transmission is not None:
            np.maximum(transmission, np.float32(min_transmission), out=transmission)
        not_positive = int((transmission <= 0).sum())
        if not_positive:
            raise ValueError(
                f"expected counts above the darks, got {not_positive} of {transmission.size} that are not, in rows "
                f"{_span(rows, self.num_rows)} of {self.source}; min_transmission=0.001 raises them to a thousandth "
                "of the beam"
            )
        return -np.log(transmission, out=transmission)

    def _check_finite(self, values: Array, rows: slice) -> None:
        if not np.isfinite(values).all():
            number = int((~np.isfinite(values)).sum())
            raise ValueError(
                f"expected finite counts, got {number} that are NaN or infinite, in rows "
                f"{_span(rows, self.num_rows)} of {self.source}"
            )


def _mean(fields: Any, rows: slice) -> Array:
    """The mean field of some rows, (rows, 1, pixels)."""
    return np.asarray(fields[:, rows], dtype=np.float32).mean(axis=0)[:, None]


def _span(rows: slice, num_rows: int) -> str:
    first, stop, _ = rows.indices(num_rows)
    return f"{first} to {stop - 1}"


def even_angles(num_views: int, range_deg: Sequence[float]) -> NDArray[np.float64]:
    """Return equispaced angles in radians from the first to the last of ``range_deg``, both included: (num_views,).

    Raises:
        ValueError: if ``range_deg`` is not two finite numbers that differ.
    """
    if len(range_deg) != 2 or not np.isfinite(range_deg).all() or range_deg[0] == range_deg[1]:
        raise ValueError(f"expected a range of angles as first and last in degrees, got {list(range_deg)}")
    return np.deg2rad(np.linspace(range_deg[0], range_deg[1], num_views))
