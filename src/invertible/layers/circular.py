"""Circular convolution in the image domain."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..export import is_exporting, under_torch_func

CONVOLUTIONS = {1: nn.functional.conv1d, 2: nn.functional.conv2d, 3: nn.functional.conv3d}


def convolve_circularly(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Circular convolution of images (B, C, *spatial), which keeps their size, with a faster gradient than torch's.

    Args:
        x: the images, in 1, 2 or 3 dimensions.
        weight: the kernel (C', C, *sizes), no larger than the images.
        bias: (C'), or None.

    Example:
        >>> x = torch.arange(4.0).reshape(1, 1, 4)
        >>> convolve_circularly(x, torch.ones(1, 1, 3), None)
        tensor([[[4., 3., 6., 5.]]])
    """
    pad = _pad if is_exporting() or under_torch_func() else _CircularPadding.apply
    sides = [((k - 1) // 2, k // 2) for k in weight.shape[2:]]  # how far the kernel extends before and after the image
    return CONVOLUTIONS[x.ndim - 2](pad(x, sides), weight, bias)


def _pad(x: Tensor, sides: Sequence[tuple[int, int]]) -> Tensor:
    return nn.functional.pad(x, [side for pair in reversed(sides) for side in pair], mode="circular")


class _CircularPadding(torch.autograd.Function):
    """Circular padding by the extent of a kernel; torch's own takes ten times as long in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sides: Sequence[tuple[int, int]]) -> Tensor:
        ctx.sides = sides
        return _pad(x, sides)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        for dim, (before, after) in enumerate(ctx.sides, start=2):
            size = grad.shape[dim] - before - after
            first, last = grad.narrow(dim, 0, before), grad.narrow(dim, before + size, after)
            inner = grad.narrow(dim, before, size)
            # The gradient belongs to autograd: the first crop is a copy.
            grad = inner.clone() if dim == 2 else inner
            grad.narrow(dim, size - before, before).add_(first)
            grad.narrow(dim, 0, after).add_(last)
        return grad, None
