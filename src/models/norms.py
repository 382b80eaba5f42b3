"""Normalisations by the statistics of each sample, with torch's names, parameters and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..invertible.export import needs_plain_operations
from .convolution import precision_of
from .normalisation import Normalised, Options, sums_naively
from .state_layout import has_no_gaps

# A block of a GPU's threads normalises about this many numbers in the time in which `volume_norm` starts its dozen
# kernels. Estimated, not measured.
_LARGE = 2**18
# So many blocks keep all multiprocessors of a GPU busy.
_MANY = 256


def volume_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """Group norm of a state (B, C, *spatial) by `Normalisation`, in the precision of autocast.

    Statistics have at least single precision. One group is layer norm, a group for each channel instance norm.
    """
    x = x.to(precision_of(x))
    y, _, _ = Normalised.apply(
        x if has_no_gaps(x) else x.contiguous(), weight, bias, Options(groups, eps), False, False
    )
    return y


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm` that uses a whole GPU for a few large groups, and is exact for large volumes on a CPU.

    On a GPU it is in half precision under autocast.
    """

    def forward(self, x: Tensor) -> Tensor:
        if _is_volume(x, self.num_groups) and self.affine:
            return volume_norm(x, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(x)


class _InstanceNorm:
    """Instance norm as group norm with one channel per group, which is the same, where torch's own is slow or fails.

    It is slow on a GPU for few large channels, and inexact on a CPU for large volumes with channels last in memory. It
    raises an IndexError for learned scales and a batch without samples, as in
    https://github.com/pytorch/pytorch/issues/39049.
    """

    def forward(self: Any, x: Tensor) -> Tensor:
        if not x.shape[0]:
            return F.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)
        if _is_volume(x, x.shape[1]) and self.affine and not self.track_running_stats:
            return volume_norm(x, self.weight, self.bias, x.shape[1], self.eps)
        y = super().forward(x)  # type: ignore[misc]
        if y.requires_grad and not torch.compiler.is_compiling():
            # For one sample on a CPU, torch 2.11 to 2.14 misread a gradient that has its channels last in memory: the
            # gradients of input and scale would have errors of 100 %.
            y.register_hook(Tensor.contiguous)
        return y


class InstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    """`torch.nn.InstanceNorm1d` for batches of any size, large volumes, and any memory layout."""


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` for batches of any size, large volumes, and any memory layout."""


class InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` for batches of any size, large volumes, and any memory layout."""


def _is_volume(x: Tensor, groups: int) -> bool:
    """Whether torch's kernel would be inexact, leave most of a GPU idle, or keep copies in float32 under autocast."""
    if x.is_cuda:
        is_idle = x.shape[0] * groups < _MANY or torch.is_autocast_enabled(x.device.type)
        gains = is_idle and x.numel() > _LARGE * x.shape[0] * groups
    else:
        gains = sums_naively(x, groups) and has_no_gaps(x)
    # A compiler splits the sums itself; `torch.func` needs operations that it knows.
    return gains and not needs_plain_operations()
