"""Where the voxels of an image are, and whether those of two images are at the same places."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# How far two files may place the same corner apart, in voxels. Rounding in headers is far below.
TOLERANCE_VOXELS = 0.1


class Grid(NamedTuple):
    """The voxels of a file.

    Attributes:
        file: its name, for messages.
        shape: their numbers along the 2 or 3 spatial axes.
        affine: 4×4, from their indices to millimetres; None where the format does not know it.
    """

    file: str
    shape: tuple[int, ...]
    affine: NDArray[np.float64] | None

    @property
    def spacing(self) -> tuple[float, ...]:
        """The voxels' sides along each axis, in mm, where there is an affine."""
        assert self.affine is not None
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0)[: len(self.shape)].tolist())


def geometry_errors(grid: Grid, expected: Grid) -> Iterator[str]:
    """Yield how a grid's voxels differ in number or place from those of the expected one."""
    if grid.shape != expected.shape:
        yield f"expected the spatial shape {expected.shape} of {expected.file}, got {grid.shape}; resample one of them"
        return
    if grid.affine is None or expected.affine is None:
        return
    corner = np.ones(4)
    corner[: len(grid.shape)] = grid.shape
    apart_mm = (np.abs(grid.affine - expected.affine)[:3] @ corner).max()
    if apart_mm <= TOLERANCE_VOXELS * min(expected.spacing):
        return
    spacings = [np.round(one.spacing, 4).tolist() for one in (expected, grid)]
    if spacings[0] != spacings[1]:
        yield f"expected the spacing {spacings[0]} mm of {expected.file}, got {spacings[1]}; resample one of them"
    else:
        yield (
            f"expected the place of {expected.file}, got one up to {apart_mm:.3g} mm away; resample one to the "
            "other's grid, or correct its affine"
        )
