"""Group norm of volumes and a leaky ReLU behind it: values, and gradients that need no memory but their own.

On a GPU, sums over the whole tensor take the place of torch's kernel, which starts one block for each sample and group:
for layer norm at batch size 1, that is one multiprocessor of the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .graphs import graph_is_freed
from .state_layout import StateLayout, has_no_gaps

# States of up to this many numbers are left to torch's kernels, which keep more but take fewer calls.
_SMALL = 2**16
_EXACT = 2**15  # voxels times groups


@dataclass(frozen=True)
class Options:
    """What a group norm with a leaky ReLU behind it does.

    Attributes:
        groups: number of groups of channels that have statistics of their own.
        eps: added to their variance.
        slope: of the leaky ReLU for negative numbers, None for the identity.
    """

    groups: int
    eps: float
    slope: float | None = None

    def followed_by(self, slope: float) -> Options:
        """With a leaky ReLU."""
        return replace(self, slope=slope)


def normalised_by_torch(x: Tensor, weight: Tensor, bias: Tensor, options: Options) -> Tensor:
    """The same by torch's operations, which can be differentiated any number of times."""
    y = torch.nn.functional.group_norm(x, options.groups, weight.to(x.dtype), bias.to(x.dtype), options.eps)
    return y if options.slope is None else torch.nn.functional.leaky_relu(y, options.slope)


@dataclass(frozen=True)
class Normalisation:
    """``y = σ(w (x − m) / s + b)`` with mean m and deviation s over the voxels and channels of each group.

    One group is layer norm, a group for each channel instance norm.

    Attributes:
        weight, bias: of shape (C,).
        mean, rstd: ``m`` and ``1 / s``, of shape (B, G), in at least float32.
        options: with σ.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    rstd: Tensor
    options: Options

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, bias: Tensor, options: Options) -> tuple[Normalisation, Tensor]:
        """The normalisation of a state (B, C, *spatial), and its output for it."""
        if _has_good_kernels(x, options.groups):
            y, mean, rstd = torch.native_group_norm(
                x, weight, bias, x.shape[0], x.shape[1], math.prod(x.shape[2:]), options.groups, options.eps
            )
            return cls(weight, bias, mean, rstd, options), _activated(y, options)
        mean, rstd = _moments(x, options)
        normalisation = cls(weight, bias, mean, rstd, options)
        return normalisation, normalisation._into(torch.empty_like(x), x)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.weight, self.bias, self.mean, self.rstd

    def overwrite(self, x: Tensor) -> Tensor:
        """The output in the memory of the input."""
        return self._into(x, x)

    def _into(self, y: Tensor, x: Tensor) -> Tensor:
        layout = StateLayout.of(x)
        scale, offset = layout.spread(*self._scale_and_offset())
        torch.addcmul(offset, layout.matrix(x), scale, out=layout.matrix(y))
        return _activated(y, self.options)

    def _scale_and_offset(self) -> tuple[Tensor, Tensor]:
        """``y = σ(scale · x + offset)``, both of shape (B, C)."""
        scale = self._per_channel(self.rstd) * self.weight
        return scale, self.bias - self._per_channel(self.mean) * scale

    def _per_channel(self, values: Tensor) -> Tensor:
        return _per_channel(values, len(self.weight))

    def gradients(self, x: Tensor, grad: Tensor, may_overwrite: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, weight and bias for that of the output, which may be overwritten if the caller says so.

        With ``ĝ = w g σ'`` and ``x̂ = (x − m) / s``: ``∇x = (ĝ − mean(ĝ) − x̂ mean(ĝ x̂)) / s``, ``∇w = Σ g σ' x̂``,
        ``∇b = Σ g σ'``.
        """
        is_linear, is_laid_out_as_x = self.options.slope is None, grad.stride() == x.stride()
        may_overwrite = may_overwrite and is_laid_out_as_x
        if _has_good_kernels(x, self.options.groups) and is_laid_out_as_x and (may_overwrite or is_linear):
            # Torch's kernel is faster, but needs memory for its result.
            return self._gradients_by_torch(x, grad if is_linear else self._through_activation_(x, grad))
        grad = grad if may_overwrite else torch.empty_like(x).copy_(grad)
        return self._gradients_in_place(x, grad if is_linear else self._through_activation_(x, grad))

    def _through_activation_(self, x: Tensor, grad: Tensor) -> Tensor:
        """``g σ'``, in place."""
        assert self.options.slope is not None
        layout = StateLayout.of(x)
        scale, offset = layout.spread(*self._scale_and_offset())
        for g, part in layout.chunks(layout.matrix(grad), layout.matrix(x)):
            y = torch.addcmul(offset, part, scale)
            torch.ops.aten.leaky_relu_backward.grad_input(g, y, self.options.slope, False, grad_input=g)
        return grad

    def _gradients_by_torch(
        self, x: Tensor, grad: Tensor, wanted: tuple[bool, bool, bool] = (True, True, True)
    ) -> tuple[Tensor, Tensor, Tensor]:
        sizes = (*x.shape[:2], math.prod(x.shape[2:]), self.options.groups)
        return torch.ops.aten.native_group_norm_backward(grad, x, self.mean, self.rstd, self.weight, *sizes, wanted)

    def _gradients_in_place(self, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layout = StateLayout.of(x)
        sums = self._sums(layout, x, grad)  # (2, B, C)
        of_grad, of_x, constant = layout.spread(*self._coefficients(x, sums))
        inner = layout.matrix(grad)
        torch.addcmul(constant, inner, of_grad, out=inner).addcmul_(layout.matrix(x), of_x)
        grad_weight, grad_bias = sums.sum(1).unbind()
        return grad, grad_weight, grad_bias

    def gradients_over_input(self, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same with the gradient of x in the memory of x, for a gradient in any layout, which stays as it is."""
        layout = StateLayout.of(x, of_planes=True)
        scale, offset = layout.spread(*self._scale_and_offset())
        rstd = self._per_channel(self.rstd)
        whitened, shift = layout.spread(rstd, -self._per_channel(self.mean) * rstd)

        def through_activation(part: Tensor, g: Tensor) -> Tensor:
            if self.options.slope is None:
                return g
            y = torch.addcmul(offset, part, scale)
            return torch.ops.aten.leaky_relu_backward.grad_input(g, y, self.options.slope, False, grad_input=y)

        def sums_of(x: Tensor, grad: Tensor) -> Tensor:
            part = layout.matrix(x)
            g = through_activation(part, layout.matrix_like(part, grad))
            return torch.stack((layout.sum(torch.addcmul(shift, part, whitened).mul_(g)), layout.sum(g)))

        def overwrite(x: Tensor, grad: Tensor) -> None:
            part = layout.matrix(x)
            g = through_activation(part, layout.matrix_like(part, grad))
            torch.addcmul(constant, part, of_x, out=part).addcmul_(g, of_grad)

        planes = layout.planes(x, grad)
        sums = torch.stack([sums_of(*pair) for pair in planes]).sum(0)  # (2, B, C)
        of_grad, of_x, constant = layout.spread(*self._coefficients(x, sums))
        for pair in planes:
            overwrite(*pair)
        grad_weight, grad_bias = sums.sum(1).unbind()
        return x, grad_weight, grad_bias

    def _coefficients(self, x: Tensor, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``∇x = a g + b x + c`` for ``Σ g x̂`` and ``Σ g``, (2, B, C): a, b and c, each (B, C) or (B, 1)."""
        batch, groups = self.mean.shape
        means = (sums * self.weight).view(2, batch, groups, -1).sum(3) * (groups / x[0].numel())  # (2, B, G)
        mean_product, mean_grad = (means * self.rstd).unbind()
        of_x = -mean_product * self.rstd
        constant = -mean_grad - self.mean * of_x
        return self._per_channel(self.rstd) * self.weight, self._per_channel(of_x), self._per_channel(constant)

    def _sums(self, layout: StateLayout, x: Tensor, grad: Tensor) -> Tensor:
        """``Σ g x̂`` and ``Σ g`` over the voxels of each sample, (2, B, C)."""
        # Torch 2.11 reads from nowhere where x is in another precision than the weight.
        if _has_good_kernels(x, self.options.groups) and len(x) == 1 and x.dtype == self.weight.dtype:
            return torch.stack(self._gradients_by_torch(x, grad, (False, True, True))[1:])[:, None]
        rstd = self._per_channel(self.rstd)
        scale, offset = layout.spread(rstd, -self._per_channel(self.mean) * rstd)
        pieces = layout.chunks(layout.matrix(grad), layout.matrix(x))
        products = [layout.sum(torch.addcmul(offset, part, scale).mul_(g)) for g, part in pieces]
        return torch.stack((torch.stack(products).sum(0), layout.sum(layout.matrix(grad))))


class Normalised(torch.autograd.Function):
    """``σ(norm(x))`` with the statistics of x, see `Normalisation`. It saves x alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, options: Options, is_convolved: bool, is_own: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        normalisation, y = Normalisation.of(x, weight, bias, options)
        ctx.save_for_backward(x, *normalisation.tensors)
        # Then nobody but the convolution's backward has seen the gradient.
        ctx.options, ctx.may_overwrite = options, is_convolved
        ctx.is_own = is_own and not is_convolved  # x is seen by nobody else
        statistics = normalisation.mean, normalisation.rstd
        ctx.mark_non_differentiable(*statistics)
        ctx.set_materialize_grads(False)
        return y, *statistics

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> Any:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        if grad is None:
            return (None,) * 6
        if torch.is_grad_enabled():  # to be differentiated once more
            y = normalised_by_torch(x, weight, bias, ctx.options)
            return *_differentiated(y, (x, weight, bias), grad), None, None, None
        normalisation = Normalisation(weight, bias, mean, rstd, ctx.options)
        # A CPU adds up the gradients of a linear one faster otherwise; its peak lies in the convolutions before it.
        gains = ctx.options.slope is not None or not _has_good_kernels(x, ctx.options.groups)
        if ctx.is_own and gains and graph_is_freed():
            return *normalisation.gradients_over_input(x, grad), None, None, None
        return *normalisation.gradients(x, grad, ctx.may_overwrite), None, None, None


def _differentiated(y: Tensor, inputs: Sequence[Tensor], grad: Tensor) -> list[Tensor | None]:
    tracked = [part for part in inputs if part.requires_grad]
    found = iter(torch.autograd.grad(y, tracked, grad, create_graph=True))
    return [next(found) if part.requires_grad else None for part in inputs]


def sums_naively(x: Tensor, groups: int) -> bool:
    """Whether torch's kernels would add up so many numbers one by one that the errors of rounding count.

    On a CPU they do so where the channels are last in memory. The deviation of a group of 8 channels then has a
    relative error of 2e-6 for 32³ voxels, 1e-5 for 48³ and 8e-4 for 128³, that of a single channel up to twice as much.
    """
    is_naive = x.device.type == "cpu" and not x.is_contiguous()
    return is_naive and groups * math.prod(x.shape[2:]) > _EXACT


def _has_good_kernels(x: Tensor, groups: int) -> bool:
    """Whether torch's kernels are faster, and exact."""
    return x.device.type == "cpu" and not sums_naively(x, groups)


def is_worthwhile(x: Tensor) -> bool:
    """Whether a state is large enough to gain, and laid out as `StateLayout` has it."""
    return x.numel() > _SMALL and has_no_gaps(x)


def _activated(y: Tensor, options: Options) -> Tensor:
    return y if options.slope is None else torch.nn.functional.leaky_relu_(y, options.slope)


def _per_channel(values: Tensor, channels: int) -> Tensor:
    """(B, G) to (B, C), or to (B, 1), which broadcasts."""
    batch, groups = values.shape
    if groups in (1, channels):
        return values
    return values[:, :, None].expand(batch, groups, channels // groups).reshape(batch, channels)


def _moments(x: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """Mean and ``1 / √(variance + ε)`` of each sample and group, (B, G); the variance by a second pass."""
    layout, batch, groups = StateLayout.of(x), x.shape[0], options.groups
    count, per_group = x[0].numel() // groups, x.shape[1] // groups
    total = layout.sum(layout.matrix(x))
    mean = total.view(batch, groups, per_group).sum(2) / count
    (negative_mean,) = layout.spread(_per_channel(-mean, x.shape[1]))
    squares = [layout.sum((part + negative_mean).square_()) for (part,) in layout.chunks(layout.matrix(x))]
    variance = torch.stack(squares).sum(0).view(batch, groups, per_group).sum(2) / count
    return mean, (variance + options.eps).rsqrt()
