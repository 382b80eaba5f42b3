"""A measured parallel-beam scan: counts, flat and dark fields, angles, and the line integrals that they come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

MAX_LISTED = 10  # rows in a message


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
        ValueError: for shapes that do not fit, angles that are not finite, values that are no real numbers, and
            integers without flats, which are no line integrals.

    Example:
        >>> scan = Scan(np.full((3, 2, 4), 50), np.zeros(3), flats=np.full((1, 2, 4), 100))
        >>> scan.line_integrals(slice(0, 1))[0, 0]  # log 2
        array([0.6931472, 0.6931472, 0.6931472, 0.6931472], dtype=float32)
    """

    counts: Any
    angles_rad: NDArray[np.float64]
    flats: Any = None
    darks: Any = None
    source: str = "the scan"

    def __post_init__(self) -> None:
        shape = tuple(self.counts.shape)
        if len(shape) != 3 or 0 in shape:
            hint = "; those of one row are (views, 1, pixels)" if len(shape) == 2 else ""
            raise ValueError(f"expected projections of shape (views, rows, pixels), got {shape} in {self.source}{hint}")
        angles = np.asarray(self.angles_rad, dtype=np.float64)
        finite = np.isfinite(angles)
        if angles.shape != shape[:1] or not finite.all():
            got = f"{angles.size} angles" if finite.all() else f"{(~finite).sum()} that are NaN or infinite"
            raise ValueError(f"expected a finite angle for each of {shape[0]} views, got {got} for {self.source}")
        object.__setattr__(self, "angles_rad", angles)
        for name in ("flats", "darks"):
            field = getattr(self, name)
            if field is not None and (len(field.shape) != 3 or tuple(field.shape[1:]) != shape[1:] or not len(field)):
                raise ValueError(
                    f"expected {name} of shape (n, {shape[1]}, {shape[2]}), got {tuple(field.shape)} for {self.source}"
                )
        if self.darks is not None and self.flats is None:
            raise ValueError(f"expected flats beside the darks, got none for {self.source}")
        for name in ("counts", "flats", "darks"):
            kind = getattr(getattr(self, name), "dtype", None)
            if kind is not None and kind.kind not in "biuf":
                raise ValueError(f"expected {name} that are real numbers, got {kind} in {self.source}")
        if self.flats is None and self.counts.dtype.kind != "f":
            raise ValueError(
                f"expected flats for the counts of {self.source}, which are {self.counts.dtype}, got none; line "
                "integrals are floating-point numbers"
            )

    @property
    def num_rows(self) -> int:
        """Rows of the detector, one for each slice."""
        return int(self.counts.shape[1])

    def line_integrals(self, rows: slice, *, min_transmission: float | None = None) -> Array:
        """Return −log((counts − dark) / (flat − dark)), the flats and darks averaged: (rows, views, pixels).

        Args:
            rows: of the detector.
            min_transmission: smaller shares of the beam, which noise makes, are raised to this, and dead pixels, whose
                flats are not above the darks, get the shares between their neighbours'.

        Raises:
            ValueError: for values that have no logarithm, without `min_transmission`, for values that are no numbers,
                and for rows of which most pixels are dead.
        """
        counts = self._finite("counts", rows).transpose(1, 0, 2)
        if self.flats is None:
            return np.ascontiguousarray(counts)
        flat = self._finite("flats", rows).mean(axis=0)[:, None]  # (rows, 1, pixels)
        dark = np.float32(0) if self.darks is None else self._finite("darks", rows).mean(axis=0)[:, None]
        dead = flat <= dark
        self._check_dead(dead, rows, min_transmission is None)
        beam = flat - dark
        beam[dead] = 1
        transmission = (counts - dark) / beam
        _bridge(transmission, dead[:, 0])
        if min_transmission is not None:
            np.maximum(transmission, np.float32(min_transmission), out=transmission)
        not_positive = transmission <= 0
        if not_positive.any():
            raise ValueError(
                f"expected counts above the darks, got {not_positive.sum()} of {transmission.size} that are not, in "
                f"{self._where(not_positive, rows)}; min_transmission=0.001 raises them to a thousandth of the beam"
            )
        return -np.log(transmission, out=transmission)

    def _finite(self, name: str, rows: slice) -> Array:
        """Return the counts, flats or darks of some rows, (n, rows, pixels); raise ValueError unless all are finite."""
        values = np.asarray(getattr(self, name)[:, rows], dtype=np.float32)
        infinite = ~np.isfinite(values)
        if infinite.any():
            raise ValueError(
                f"expected finite {name}, got {infinite.sum()} that are NaN or infinite, in "
                f"{self._where(infinite.transpose(1, 0, 2), rows)}; replace them in the file"
            )
        return values

    def _check_dead(self, dead: NDArray[np.bool_], rows: slice, strict: bool) -> None:
        mostly = dead.mean(axis=(1, 2)) > 0.5
        if dead.any() and (strict or mostly.any()):
            remedy = (
                "are flats and darks exchanged?"
                if mostly.any()
                else "with min_transmission=0.001 these dead pixels get the values between their neighbours'"
            )
            raise ValueError(
                f"expected flats above the darks, got {dead.sum()} of {dead.size} pixels that are not, in "
                f"{self._where(dead, rows)}; {remedy}"
            )

    def _where(self, bad: NDArray[np.bool_], rows: slice) -> str:
        """Name the rows with a bad value, of values (rows, …), and the scan."""
        first, _, _ = rows.indices(self.num_rows)
        found = (first + np.flatnonzero(bad.any(axis=(1, 2)))).tolist()
        more = "" if len(found) <= MAX_LISTED else f" and {len(found) - MAX_LISTED} more"
        return f"row{'s'[: len(found) > 1]} {', '.join(map(str, found[:MAX_LISTED]))}{more} of {self.source}"


def _bridge(values: Array, dead: NDArray[np.bool_]) -> None:
    """Set the dead pixels (rows, pixels) of each view of values (rows, views, pixels) to those between the others."""
    for views, bad in zip(values, dead, strict=True):
        if bad.any():
            good, gaps = np.flatnonzero(~bad), np.flatnonzero(bad)
            for view in views:
                view[gaps] = np.interp(gaps, good, view[good])


def even_angles(num_views: int, range_deg: Sequence[float]) -> NDArray[np.float64]:
    """Return equispaced angles in radians from the first to the last of ``range_deg``, both included: (num_views,).

    Raises:
        ValueError: if ``range_deg`` is not two finite numbers that differ.
    """
    if len(range_deg) != 2 or not np.isfinite(range_deg).all() or range_deg[0] == range_deg[1]:
        raise ValueError(f"expected a range of angles as first and last in degrees, got {list(range_deg)}")
    return np.deg2rad(np.linspace(range_deg[0], range_deg[1], num_views))
