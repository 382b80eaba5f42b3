"""Volumes with voxels of another size, as nnU-Net makes them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.transform import resize

# From this ratio of the voxels' longest to shortest side on, slices are interpolated in their plane only.
ANISOTROPY = 3.0


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """Return how many voxels of the sides ``target`` fill the same volume."""
    return tuple(max(1, round(n * old / new)) for n, old, new in zip(shape, spacing, target, strict=True))


def thick_axis(*spacings: Sequence[float]) -> int | None:
    """Return the axis across thick slices of the first spacing that has them, else None."""
    for spacing in spacings:
        if max(spacing) / min(spacing) > ANISOTROPY:
            return int(np.argmax(spacing))
    return None


def resample_image(image: NDArray[np.float32], shape: Sequence[int], thick: int | None) -> NDArray[np.float32]:
    """Return channels (C, X, Y, Z) with another spatial shape: cubic splines; nearest slices across a thick axis.

    The outer faces of the volumes coincide, voxel centres in general do not.
    """
    if image.shape[1:] == tuple(shape):
        return image
    return np.stack([_resize(channel, shape, thick, order=3) for channel in image]).astype(np.float32)


def resample_classes(classes: NDArray[np.uint8], shape: Sequence[int], thick: int | None) -> NDArray[np.uint8]:
    """Return classes (X, Y, Z) with another shape: the class with the largest share, by linear interpolation."""
    if classes.shape == tuple(shape):
        return classes
    result = np.zeros(shape, np.uint8)
    largest = np.zeros(shape, np.float32)
    for value in np.unique(classes):
        share = _resize((classes == value).astype(np.float32), shape, thick, order=1)
        result[share > largest] = value
        np.maximum(largest, share, out=largest)
    return result


def _resize(volume: NDArray[np.float32], shape: Sequence[int], thick: int | None, order: int) -> NDArray[np.float32]:
    if thick is not None:
        in_plane = [volume.shape[axis] if axis == thick else n for axis, n in enumerate(shape)]
        volume = resize(volume, in_plane, order, mode="edge", anti_aliasing=False, preserve_range=True)
        order = 0
    return resize(volume, shape, order, mode="edge", anti_aliasing=False, preserve_range=True)
