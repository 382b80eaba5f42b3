"""The 3D convolution, with oneDNN's fast kernels on a CPU."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..invertible.export import is_exporting, under_torch_func

# A batch of one volume with at most this many elements, without its innermost dimension, goes to a slow kernel of
# torch's own (`use_mkldnn` in aten/src/ATen/native/Convolution.cpp; https://github.com/pytorch/pytorch/issues/35937).
_SLOW_SIZE = 20480
_ONES, _ZEROS, _PAIRS = (1, 1, 1), (0, 0, 0), (1, 1, 2)
Overwrite = Callable[[Tensor], Tensor]
_HAS_WIDE_VECTORS = torch.backends.cpu.get_cpu_capability().startswith("AVX512")


@functools.cache
def _onednn() -> Callable[..., Tensor] | None:
    """oneDNN's convolution, a private operator of torch; None if torch lacks it or it takes other arguments."""
    voxel = torch.zeros(1, 1, 1, 1, 1, dtype=torch.float32, device="cpu")
    try:
        torch.ops.aten.mkldnn_convolution(voxel, voxel, None, _ZEROS, _ONES, _ONES, 1)
    except (AttributeError, TypeError, RuntimeError):
        return None
    return torch.ops.aten.mkldnn_convolution


def fast_layout(x: Tensor) -> Tensor:
    """``x`` in the memory layout in which 3D convolutions are fast: on a CPU, volumes with the channels last.

    This is twice as fast as channels first for 8 channels, and a little faster for more. Other tensors are returned
    as they are, also in double precision, for which there is no fast kernel.
    """
    return x.contiguous(memory_format=torch.channels_last_3d) if x.ndim == 5 and _runs_on_onednn(x) else x


def _runs_on_onednn(x: Tensor) -> bool:
    return (
        type(x) in (Tensor, nn.Parameter)  # not a subclass, such as the fake tensors that count bytes
        and not is_exporting()  # for other machines
        and not torch.compiler.is_compiling()  # since a compiler chooses kernels and layouts itself
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and torch.backends.mkldnn.is_available()
    )


def precision_of(x: Tensor) -> torch.dtype:
    """The precision in which ``x`` is convolved; autocast does not change double precision."""
    device = x.device.type
    cast = torch.is_autocast_enabled(device) and x.dtype != torch.float64
    return torch.get_autocast_dtype(device) if cast else x.dtype


def has_wrong_gradient(layer: nn.Conv3d, x: Tensor) -> bool:
    """Whether oneDNN would return a wrong weight gradient, with errors of 100 % and infinities.

    This happens in half precision in torch 2.11 to 2.14: with several planes, but fewer than the kernel has; with rows
    so few that the kernel reaches across all of them; with strides smaller than the kernel, which may also end in a
    crash. No issue of PyTorch or oneDNN describes it; https://github.com/pytorch/pytorch/issues/169688 is a similar
    fault in the forward pass.
    """
    if x.device.type != "cpu" or precision_of(x) not in (torch.bfloat16, torch.float16):
        return False
    (planes, rows, _), (depth, height) = layer.kernel_size, x.shape[-3:-1]
    overlaps = any(1 < step < size for step, size in zip(layer.stride, layer.kernel_size, strict=True))
    return overlaps or 1 < depth < planes or height < rows // 2


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d` with the same parameters and values, 2 to 10 times as fast on a CPU.

    Outputs have their channels last. A single small volume goes to oneDNN instead of the slow kernel that torch would
    choose. What oneDNN would return wrong weight gradients of (`has_wrong_gradient`) is convolved in single precision.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.is_ours(input):
            return fast_layout(_Convolution.apply(input, weight, bias, self.padding))
        if not has_wrong_gradient(self, input):
            return fast_layout(super()._conv_forward(input, weight, bias))
        precision = precision_of(input)
        with torch.autocast("cpu", enabled=False):
            bias = None if bias is None else bias.float()
            return self._conv_forward(input.float(), weight.float(), bias).to(precision)

    def is_ours(self, x: Tensor) -> bool:
        """Whether `_Convolution` can replace torch's convolution."""
        return (
            _runs_on_onednn(x)
            and x.ndim == 5
            and precision_of(x) == torch.float32
            and not under_torch_func()
            and self.padding_mode == "zeros"
            and self.groups == 1
            and max(self.kernel_size) > 1
            and max(*self.stride, *self.dilation) == 1
            and self.padding == tuple((size - 1) / 2 for size in self.kernel_size)
            and _onednn() is not None
        )


class _Convolution(torch.autograd.Function):
    """oneDNN's convolution of volumes (B, C, D, H, W), which keeps their size. It saves its input without a copy."""

    # With the `setup_context` that torch.func needs, torch would inspect the signature at every call: 70 µs.
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return convolve(x, weight, bias, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        # The weight first, so that its slabs are freed before the gradient for the input exists.
        grad_weight = weight_gradient(grad, x, weight, ctx.padding) if needs_weight else None
        grad_x = input_gradient(grad, weight, ctx.padding) if needs_x else None
        return grad_x, grad_weight, grad.sum((0, 2, 3, 4)) if needs_bias else None, None


def _would_be_slow(x: Tensor) -> bool:
    """Whether torch would choose the slow kernel."""
    return x.shape[0] == 1 and x[..., 0].numel() <= _SLOW_SIZE


def _laid_out(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the memory layout that is fast: channels last where the volumes are larger than the weight.

    Only the weight is laid out here. The kernel then converts its input itself and does not keep the copy.
    """
    if x.numel() > weight.numel():
        return x, weight.contiguous(memory_format=torch.channels_last_3d)
    return x.contiguous(), weight.contiguous()


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int]) -> Tensor:
    convolution = _onednn()
    assert convolution is not None
    if _goes_in_pairs(x, weight):
        bias = None if bias is None else bias.repeat(2)
        return _from_pairs(convolution(*_laid_out(x, _for_pairs(weight)), bias, padding, _PAIRS, _ONES, 1))
    return convolution(*_laid_out(x, weight), bias, padding, _ONES, _ONES, 1)


def input_gradient(grad: Tensor, weight: Tensor, padding: Sequence[int]) -> Tensor:
    return convolve(grad, weight.transpose(0, 1).flip(2, 3, 4), None, padding)


def weight_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, padding: Sequence[int], overwrite: Overwrite | None = None
) -> Tensor:
    """For an input x, or for what ``overwrite`` makes of x."""
    batch, channels, depth, height, width = grad.shape
    # The halves of a small volume along D are a batch of two, which torch hands to oneDNN. A volume that cannot be
    # halved is left to the slow kernel.
    if _would_be_slow(x) and depth % 2 == 0 and depth // 2 >= padding[0]:
        x, padding, batch, depth = _slabs(x, padding[0], overwrite), (0, *padding[1:]), 2, depth // 2
        grad = _regrouped(grad, batch, depth, height, width, channels)
    elif overwrite is not None:
        x = overwrite(x.clone())
    if _goes_in_pairs(x, weight):
        grad = _regrouped(grad, batch, depth, height, width // 2, 2 * channels)
        both = _kernel_gradient(grad, x, _for_pairs(weight), padding, _PAIRS)
        first, second = both.chunk(2)
        return first[..., :-1] + second[..., 1:]
    return _kernel_gradient(grad, x, weight, padding, _ONES)


def _kernel_gradient(grad: Tensor, x: Tensor, weight: Tensor, padding: Sequence[int], stride: Sequence[int]) -> Tensor:
    """The weight's gradient by the kernel that torch chooses."""
    x, weight = _laid_out(x, weight)
    only_weight = (False, True, False)
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, _ONES, False, _ZEROS, 1, only_weight
    )[1]


# With few channels, two neighbouring voxels of a row are computed as one voxel of twice the channels, by a kernel that
# is one voxel wider and has stride two. That is a third more work, but oneDNN fills vectors of 16 numbers with
# channels, so it takes 0.7 to 0.85 of the time.


def _goes_in_pairs(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution by this weight is faster by pairs of voxels, of which it needs two in a row.

    With stride (1, 1, 2), one channel and one voxel in a row of its output, oneDNN leaves a part of it unwritten.
    """
    return (
        _HAS_WIDE_VECTORS
        and weight.shape[0] <= 8
        and weight.shape[-1] > 1
        and x.shape[-1] % 2 == 0
        and x.shape[-1] > 2
        and x.numel() > 3 * weight.numel()  # larger than the weight for pairs
    )


def _for_pairs(weight: Tensor) -> Tensor:
    """The weight (O, C, k, k, k) for pairs, (2O, C, k, k, k + 1): for the first voxels, then for the second ones."""
    return torch.cat((nn.functional.pad(weight, (0, 1)), nn.functional.pad(weight, (1, 0))))


def _from_pairs(y: Tensor) -> Tensor:
    """(B, 2O, D, H, W/2) to (B, O, D, H, W); with the channels last, the same numbers in the same order.

    In place, since the layer after a convolution may overwrite its output, which autograd forbids for views.
    """
    y = y.contiguous(memory_format=torch.channels_last_3d)
    batch, channels, depth, height, width = y.shape
    channels, width = channels // 2, 2 * width
    row, plane = channels * width, channels * width * height
    return y.as_strided_((batch, channels, depth, height, width), (plane * depth, 1, plane, row, channels))


def _regrouped(y: Tensor, *shape: int) -> Tensor:
    """A volume reshaped to sizes (B, D, H, W, C), without a copy if its channels are last in memory."""
    return y.movedim(1, -1).reshape(shape).movedim(-1, 1)


def _slabs(x: Tensor, overlap: int, overwrite: Overwrite | None = None) -> Tensor:
    """The halves of a volume (1, C, D, H, W) along D, each with ``overlap`` more planes on both sides, zero outside.

    With ``overwrite``, those of the volume that it makes of x.
    """
    _, channels, depth, *plane = x.shape
    half = depth // 2
    shape = (2, channels, half + 2 * overlap, *plane)
    slabs = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last_3d)
    first, second = slabs[:1], slabs[1:]
    first[:, :, overlap:] = x[:, :, : half + overlap]
    second[:, :, : half + overlap] = x[:, :, half - overlap :]
    if overwrite is not None:
        overwrite(slabs)
    first[:, :, :overlap] = 0
    second[:, :, half + overlap :] = 0
    return slabs
