"""Whether the voxels of two images are at the same places."""

from __future__ import annotations

import re

import numpy as np
import pytest

from src.utils.grids import Grid, geometry_errors

AFFINE = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3.0, 11], [0, 0, 0, 1]])


def moved(by_mm: float = 0, scale: float = 1, shape: tuple[int, ...] = (5, 4, 3)) -> Grid:
    affine = AFFINE.copy()
    affine[2, 3] += by_mm
    affine[:3, :3] *= scale
    return Grid("b.nii", shape, affine)


def test_the_spacing_is_that_of_the_spatial_axes() -> None:
    assert moved().spacing == (1.5, 2.0, 3.0) and moved(shape=(5, 4)).spacing == (1.5, 2.0)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (moved(shape=(6, 4, 3)), r"expected the spatial shape \(5, 4, 3\) of a\.nii, got \(6, 4, 3\)"),
        (moved(by_mm=1), r"expected the place of a\.nii, got one up to 1 mm away"),
        (moved(by_mm=np.nan), r"expected the place of a\.nii, got one up to nan mm away"),
        (moved(scale=1.1), r"expected the spacing \[1\.5, 2\.0, 3\.0\] mm of a\.nii, got \[1\.65, 2\.2, 3\.3\]"),
        (moved(by_mm=0.1), None),
        (Grid("b.npy", (5, 4, 3), None), None),
    ],
)
def test_voxels_are_at_the_same_places(other: Grid, message: str | None) -> None:
    errors = list(geometry_errors(other, moved()._replace(file="a.nii")))
    assert len(errors) == (message is not None)
    assert message is None or re.search(message, errors[0])


@pytest.mark.parametrize("unit", [1e-3, 1, 100])
def test_the_tolerance_is_a_tenth_of_the_shortest_side(unit: float) -> None:
    """A voxel of micro-CT is smaller than what rounding may be in a clinical scan."""
    grid = Grid("a.nii", (5, 4, 3), AFFINE * unit)
    for share, number in ((0.14, 0), (0.16, 1)):
        affine = AFFINE * unit
        affine[0, 3] += share * unit
        assert len(list(geometry_errors(Grid("b.nii", (5, 4, 3), affine), grid))) == number
