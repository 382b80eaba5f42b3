"""Random symmetries of the cube."""

from __future__ import annotations

import torch
from torch import Tensor


def random_cube_symmetry(volumes: Tensor) -> Tensor:
    """Apply one of the cube's 48 symmetries, drawn uniformly, to all volumes (C, N, N, N) alike.

    A permutation of the axes and a flip of each of them: all 90° rotations and all flips. The draw is from torch's
    global generator; see `src.datamodules.training_loader.Seeded`.
    """
    permutation = torch.randperm(3).tolist()
    flips = torch.randint(2, (3,)).tolist()
    permuted = volumes.permute(0, *(1 + axis for axis in permutation))
    return permuted.flip([1 + axis for axis in range(3) if flips[axis]])
