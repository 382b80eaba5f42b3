"""Group norm of volumes whose statistics are reduced by a whole GPU.

torch's kernel starts one block of threads per sample and group: layer norm of a single volume runs on one of the
hundred multiprocessors of a GPU. Under autocast it also computes in float32 and keeps copies of that size. Here sums
over all voxels are left to torch's reductions, which split them, and only the statistics are float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Products of two volumes are formed for so many numbers at a time, or for a 32nd of them if that is more.
CHUNK = 2**21


def volume_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """``y = w (x − m) / √(v + ε) + b``, with mean m and variance v over the channels and voxels of each group.

    Args:
        x: of shape (B, C, *spatial); y has its precision, m and v have at least float32.
        weight, bias: of shape (C,).
        groups: number G of groups of neighbouring channels; 1 is layer norm, C instance norm.
        eps: ε.
    """
    return _VolumeNorm.apply(x, weight, bias, groups, eps)


class _VolumeNorm(torch.autograd.Function):
    """It saves x and, for each sample and group, m and ``1 / √(v + ε)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            mean, rstd = moments(x, groups, eps)
            y = normalised(x, weight, bias, mean, rstd)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.groups, ctx.eps = groups, eps
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            found: tuple[Tensor | None, ...]
            if torch.is_grad_enabled():  # to be differentiated once more
                found = _differentiable_gradients(x, weight, bias, ctx.groups, ctx.eps, grad)
            else:
                found = gradients(x, weight, mean, rstd, grad)
        return *found, None, None


def moments(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """m and ``1 / √(v + ε)``, both of shape (B, G)."""
    values = x.reshape(x.shape[0], groups, -1)
    if x.dtype in (torch.float32, torch.float64):
        variance, mean = torch.var_mean(values, dim=2, correction=0)
    else:
        # Read as they are and added in float32; `var_mean` would round its results to half precision.
        count = values.shape[2]
        mean = values.sum(2, dtype=torch.float32) / count
        root = torch.linalg.vector_norm(values, dim=2, dtype=torch.float32) / math.sqrt(count)
        variance = ((root - mean) * (root + mean)).clamp(min=0)
    return mean, (variance + eps).rsqrt_()


def normalised(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """y, in one pass over x."""
    scale = _per_channel(rstd, weight) * weight
    offset = torch.addcmul(bias, _per_channel(mean, weight), scale, value=-1)
    # Into memory of the precision of x: the sum itself is computed in that of the statistics.
    return torch.addcmul(_spread(offset, x), x, _spread(scale, x), out=torch.empty_like(x))


def gradients(x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias for the gradient g of y.

    With ``x̂ = (x − m) r``, ``r = 1 / √(v + ε)`` and means over a group: ``∇x = r (w g − mean(w g) − x̂ mean(w g x̂))``,
    ``∇w = Σ g x̂``, ``∇b = Σ g``.
    """
    grad_x = torch.empty_like(x)
    voxels, voxels_grad, voxels_out = x.flatten(2), grad.flatten(2), grad_x.flatten(2)  # (B, C, N)
    sums = [
        torch.stack((g.sum(2, dtype=mean.dtype), (g.to(mean.dtype) * part).sum(2)))
        for g, part in _chunks(voxels_grad, voxels)
    ]
    grad_bias, products = sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)  # (B, C) each
    m, r = _per_channel(mean, weight), _per_channel(rstd, weight)
    grad_weight = torch.addcmul(products, m, grad_bias, value=-1) * r
    of_groups = (torch.stack((grad_bias, grad_weight)) * weight).view(2, *mean.shape, -1).mean(3)
    mean_grad, mean_product = of_groups / math.prod(x.shape[2:])  # (B, G) each
    # ∇x = scale g + slope x + offset
    slope = -_per_channel(rstd.square() * mean_product, weight)
    offset = torch.addcmul(_per_channel(-rstd * mean_grad, weight), slope, m, value=-1)
    scale = r * weight
    for g, part, out in _chunks(voxels_grad, voxels, voxels_out):
        rest = torch.addcmul(offset[:, :, None], part, slope[:, :, None])
        torch.addcmul(rest, g, scale[:, :, None], out=out)
    return grad_x, grad_weight.sum(0).to(weight.dtype), grad_bias.sum(0).to(weight.dtype)


def _differentiable_gradients(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, grad: Tensor
) -> tuple[Tensor | None, ...]:
    """The same with a graph, from torch's own operation."""
    y = F.group_norm(x, groups, weight.to(x.dtype), bias.to(x.dtype), eps)
    inputs = (x, weight, bias)
    found = iter(torch.autograd.grad(y, [p for p in inputs if p.requires_grad], grad, create_graph=True))
    return tuple(next(found) if part.requires_grad else None for part in inputs)


def _per_channel(values: Tensor, weight: Tensor) -> Tensor:
    """(B, G) to (B, C)."""
    channels, groups = len(weight), values.shape[1]
    if groups == 1:
        return values.expand(-1, channels)
    return values if groups == channels else values.repeat_interleave(channels // groups, dim=1)


def _spread(values: Tensor, x: Tensor) -> Tensor:
    """(B, C) to (B, C, 1, …), in the number of dimensions of x."""
    return values.reshape(*values.shape, *[1] * (x.ndim - 2))


def _chunks(*volumes: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same voxels of each volume (B, C, N), in at most 33 chunks."""
    size = max(CHUNK, volumes[0].numel() // 32)
    length = max(size // math.prod(volumes[0].shape[:2]), 1)
    return zip(*(volume.split(length, dim=2) for volume in volumes), strict=True)
