"""Normalisation, activation and convolution in a row, which keep fewer activations for their gradients.

Plain autograd keeps what goes into each of the three. Here only what goes into the normalisation is kept: backward
rebuilds the input of the convolution from it, and the sign that the activation's derivative needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..invertible.export import needs_plain_operations
from .convolution import Conv3d
from .graphs import graph_is_watched
from .in_place import LeakyReLU
from .kernels import Kernels
from .normalisation import Normalisation, Normalised, Options, is_worthwhile, normalised_by_torch
from .norms import GroupNorm


class _ConvolutionOfNormalised(torch.autograd.Function):
    """The convolution of ``y = σ(norm(x))``. It saves x, which the normalisation saves as well, in the place of y."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weight: Tensor, kernels: Kernels, x: Tensor, options: Options, *normalisation: Tensor
    ) -> Tensor:
        ctx.save_for_backward(weight, x, *normalisation)
        ctx.kernels, ctx.options = kernels, options
        return kernels.forward(y, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        weight, x, norm_weight, norm_bias, mean, rstd = ctx.saved_tensors
        needs_y, needs_weight, *_ = ctx.needs_input_grad
        kernels, grad_y, grad_weight = ctx.kernels, None, None
        if torch.is_grad_enabled():  # to be differentiated once more
            y = normalised_by_torch(x, norm_weight, norm_bias, ctx.options)
            grad_y, grad_weight = kernels.differentiable_gradients(grad, y, weight)
        else:
            # The weight first, so that the rebuilt y is freed before its gradient exists.
            if needs_weight:
                normalisation = Normalisation(norm_weight, norm_bias, mean, rstd, ctx.options)
                grad_weight = kernels.weight_gradient(grad, x, weight, normalisation.overwrite)
            if needs_y:
                grad_y = kernels.input_gradient(grad, x, weight)
        return grad_y, grad_weight, *[None] * 7


def run_fused(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """The layers one after the other, each normalisation together with activation and convolution behind it.

    Layers that are of another class than expected or have hooks of their own are called as always.
    """
    position, is_own = 0, False  # whether x is an output of a convolution that nobody else has seen
    while position < len(layers):
        layer, following = layers[position], [*layers[position + 1 : position + 3], None, None]
        position += 1
        options = _options(layer, x)
        if options is None:
            x, is_own = layer(x), _returns_its_own(layer)
            continue
        if type(following[0]) is LeakyReLU and _is_unwatched(following[0]):
            options = options.followed_by(following[0].negative_slope)
            position, following = position + 1, following[1:]
        kernels = _kernels(following[0], x)
        y, mean, rstd = Normalised.apply(x, layer.weight, layer.bias, options, kernels is not None, is_own)
        if kernels is None:
            x, is_own = y, False
            continue
        position, is_own = position + 1, not graph_is_watched()
        weight = following[0].weight.to(x.dtype)  # type: ignore[union-attr]
        x = _ConvolutionOfNormalised.apply(y, weight, kernels, x, options, layer.weight, layer.bias, mean, rstd)
        del y
    return x


def _options(layer: nn.Module, x: Tensor) -> Options | None:
    """How a layer normalises, if it can be replaced."""
    if isinstance(layer, nn.GroupNorm) and type(layer) in (nn.GroupNorm, GroupNorm):
        groups = layer.num_groups
    elif isinstance(layer, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d):
        groups = layer.num_features
        if layer.track_running_stats or math.prod(x.shape[2:]) == 1:  # which it refuses
            return None
    else:
        return None
    is_ours = layer.weight is not None and layer.bias is not None and _is_unwatched(layer)
    return Options(groups, layer.eps) if is_ours and is_worthwhile(x) else None


def _kernels(layer: nn.Module | None, x: Tensor) -> Kernels | None:
    """How a layer convolves, if it can be replaced."""
    if type(layer) in (nn.Conv1d, nn.Conv2d, Conv3d) and _is_unwatched(layer):  # type: ignore[arg-type]
        return Kernels.of(layer, x)  # type: ignore[arg-type]
    return None


def _returns_its_own(layer: nn.Module) -> bool:
    """Whether nobody but the next layer sees what this one returns, and autograd does not keep it."""
    return type(layer) in (nn.Conv1d, nn.Conv2d, Conv3d) and _is_unwatched(layer) and not graph_is_watched()


def can_be_fused() -> bool:
    """Whether a graph is recorded, and not by a compiler, an exporter or a transform of `torch.func`."""
    return torch.is_grad_enabled() and not needs_plain_operations()


def _is_unwatched(layer: nn.Module) -> bool:
    """Whether a layer is what its class says, without hooks of its own."""
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    return not any(hooks) and "forward" not in layer.__dict__
