"""Parts of images on the disk, of which only these are read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_crop(image: NDArray[Any], first: Sequence[int], size: Sequence[int]) -> NDArray[Any]:
    """Return the crop (..., *size) of an image (..., *spatial) that begins at voxel ``first``, 0 outside the image."""
    axes = len(size)
    crop = np.zeros((*image.shape[:-axes], *size), image.dtype)
    source: list[Any] = [...]
    target: list[Any] = [...]
    for f, s, n in zip(first, size, image.shape[-axes:], strict=True):
        source.append(slice(max(f, 0), min(f + s, n)))
        target.append(slice(max(-f, 0), min(n - f, s)))
    crop[tuple(target)] = image[tuple(source)]
    return crop
