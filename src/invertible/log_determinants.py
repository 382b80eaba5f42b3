"""Log-determinants (B,) from their terms, in at least float32 whatever the precision of the state.

Half precision is too narrow for them: float16 ends at 65504, which the terms of one large image exceed.
"""

import math

import torch
from torch import Tensor


def sum_per_sample(values: Tensor) -> Tensor:
    """``Σ values`` of each sample (B,), in at least float32: what a log-determinant is of logarithms of derivatives.

    Args:
        values: (B, …).

    Example:
        >>> sum_per_sample(torch.full((2, 300, 300), 1.0, dtype=torch.float16))  # infinite in float16
        tensor([90000., 90000.])
    """
    return values.flatten(1).sum(1, dtype=logdet_dtype(values))


def sum_over_voxels(values: Tensor, x: Tensor) -> Tensor:
    """``Σ values`` of any shape, which are the same at each voxel, times the number of voxels of x (B, C, *spatial)."""
    return (math.prod(x.shape[2:]) * values.sum(dtype=logdet_dtype(values))).expand(x.shape[0])


def constant_logdet(value: float, x: Tensor) -> Tensor:
    """The number (B,) for each sample of x (B, …)."""
    return x.new_full((x.shape[0],), value, dtype=logdet_dtype(x))


def logdet_dtype(x: Tensor) -> torch.dtype:
    """The precision of the log-determinant of a state like x."""
    return torch.promote_types(x.dtype, torch.float32)
