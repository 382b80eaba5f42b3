"""The 3D convolution, in the form in which torch is fast on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

# One volume of at most so many elements, its innermost dimension not counted, torch hands to a slow kernel of its own
# (`use_mkldnn` in aten/src/ATen/native/Convolution.cpp).
_SLOW_SIZE = 20480
_ONES, _ZEROS = (1, 1, 1), (0, 0, 0)


def fast_layout(x: Tensor) -> Tensor:
    """``x`` in the memory layout in which 3D convolutions are fast: on a CPU, volumes with the channels last.

    Twice as fast as with the channels first for 8 channels, a little faster for more. Other tensors come back as they
    are, those of double precision among them, for which there is no fast kernel.
    """
    return x.contiguous(memory_format=torch.channels_last_3d) if x.ndim == 5 and _runs_on_onednn(x) else x


def _runs_on_onednn(x: Tensor) -> bool:
    return (
        type(x) in (Tensor, nn.Parameter)  # and no tensor of another kind, such as fake ones, which count bytes
        and not torch.compiler.is_compiling()  # which chooses kernels and layouts by itself
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and torch.backends.mkldnn.is_available()
    )


def _half_precision(x: Tensor) -> torch.dtype | None:
    """The half precision in which a convolution of ``x`` is computed on the CPU; None in any other case."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return dtype if x.device.type == "cpu" and dtype in (torch.bfloat16, torch.float16) else None


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d` with the same parameters and values, 2 to 10 times as fast on a CPU.

    Volumes are given back with their channels last, a single small volume goes past the slow kernel that torch would
    choose for it, and in half precision volumes of two planes go past a wrong one.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._is_ours(input):
            return fast_layout(_Convolution.apply(input, weight, bias, self.padding))
        half = _half_precision(input)
        if half is None or input.shape[-3] != 2:
            return fast_layout(super()._conv_forward(input, weight, bias))
        # The weight's gradient that oneDNN computes in half precision for volumes of two planes is not a gradient at
        # all, with errors of 100 % and infinities (torch 2.11 to 2.14).
        with torch.autocast("cpu", enabled=False):
            bias = None if bias is None else bias.float()
            return super()._conv_forward(input.float(), weight.float(), bias).to(half)

    def _is_ours(self, x: Tensor) -> bool:
        """Whether oneDNN can be chosen in the place of torch."""
        return (
            _runs_on_onednn(x)
            and x.ndim == 5
            and x.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and not torch._C._are_functorch_transforms_active()
            and self.padding_mode == "zeros"
            and self.groups == 1
            and max(self.kernel_size) > 1
            and max(*self.stride, *self.dilation) == 1
            and self.padding == tuple((size - 1) / 2 for size in self.kernel_size)
        )


class _Convolution(torch.autograd.Function):
    """A convolution of volumes (B, C, D, H, W) that keeps their size, by oneDNN. It saves its input as it is."""

    # With a `setup_context`, as torch.func asks for, torch would look up the signature at every call: 70 µs.
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return _convolve(x, weight, bias, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        grad_x = grad_weight = None
        if _would_be_slow(x):
            # The weight first: its slabs are freed before there is a gradient for the input.
            if needs_weight:
                grad_weight = _slab_weight_gradient(grad, x, weight, ctx.padding)
            if needs_x:
                grad_x = _convolve(grad, weight.transpose(0, 1).flip(2, 3, 4), None, ctx.padding)
        else:
            grad_x, grad_weight = _gradients(grad, x, weight, ctx.padding, (needs_x, needs_weight))
        return grad_x, grad_weight, grad.sum((0, 2, 3, 4)) if needs_bias else None, None


def _would_be_slow(x: Tensor) -> bool:
    """Whether torch would choose the slow kernel."""
    return x.shape[0] == 1 and x[..., 0].numel() <= _SLOW_SIZE


def _laid_out(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The two with the channels last where the volumes are larger than the weight.

    A weight laid out so is enough: the kernel does the same with its input, a copy that nobody keeps.
    """
    if x.numel() > weight.numel():
        return x, weight.contiguous(memory_format=torch.channels_last_3d)
    return x.contiguous(), weight.contiguous()


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int]) -> Tensor:
    return torch.ops.aten.mkldnn_convolution(*_laid_out(x, weight), bias, padding, _ONES, _ONES, 1)


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, padding: Sequence[int], needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients for input and weight by the kernel that torch chooses."""
    x, weight = _laid_out(x, weight)
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, None, _ONES, padding, _ONES, False, _ZEROS, 1, (*needed, False)
    )
    return found[0], found[1]


def _slab_weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, padding: Sequence[int]) -> Tensor | None:
    """The weight's gradient of two slabs, the halves of the volume along D: a batch of two, which goes to oneDNN.

    A volume that has no halves is left to the slow kernel.
    """
    _, _, depth, *plane = grad.shape
    if depth % 2 == 0 and depth // 2 >= padding[0]:
        x = _slabs(x, padding[0])
        # With the channels last, two slabs without overlap lie in memory as the volume does: no copy.
        grad = grad.movedim(1, -1).reshape(2, depth // 2, *plane, -1).movedim(-1, 1)
        padding = (0, *padding[1:])
    return _gradients(grad, x, weight, padding, (False, True))[1]


def _slabs(x: Tensor, overlap: int) -> Tensor:
    """The halves of a volume (1, C, D, H, W) along D, each with ``overlap`` planes more on both sides, zero outside."""
    _, channels, depth, *plane = x.shape
    half = depth // 2
    slabs = torch.empty(
        (2, channels, half + 2 * overlap, *plane), dtype=x.dtype, memory_format=torch.channels_last_3d
    )  # nothing of it is read before it is written
    first, second = slabs[0], slabs[1]
    first[:, :overlap] = 0
    first[:, overlap:] = x[0, :, : half + overlap]
    second[:, : half + overlap] = x[0, :, half - overlap :]
    second[:, half + overlap :] = 0
    return slabs
