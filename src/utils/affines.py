"""What the 4×4 matrix of an image, from its voxels' indices to millimetres, says of them."""

import numpy as np
from numpy.typing import NDArray


def spacing_of(affine: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the voxels' sides along each axis, in mm."""
    return tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
