"""The part of a scan that has anything in it."""

import numpy as np
from monai.transforms.utils import generate_spatial_bounding_box
from numpy.typing import NDArray

Box = list[tuple[int, int]]


def used_box(used: NDArray[np.bool_]) -> Box:
    """Return the first and last-plus-one voxel along each axis of the smallest box that holds all ``used`` voxels."""
    return [(int(first), int(end)) for first, end in zip(*generate_spatial_bounding_box(used[None]), strict=True)]


def as_index(box: Box) -> tuple[slice, ...]:
    """Return the box as an index."""
    return tuple(slice(first, end) for first, end in box)
