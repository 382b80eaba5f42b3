"""A convolution and its gradients as functions, for inputs that are rebuilt in backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .convolution import (
    Conv3d,
    Overwrite,
    convolve,
    fast_layout,
    has_wrong_gradient,
    input_gradient,
    precision_of,
    weight_gradient,
)


@dataclass(frozen=True)
class Kernels:
    """How a layer convolves, and the gradients of that, for an input that is rebuilt in backward.

    Attributes:
        stride, padding, dilation, groups: of the layer.
        onednn: whether oneDNN's fast kernels can be called, see `Conv3d`.
    """

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int
    onednn: bool

    @classmethod
    def of(cls, layer: nn.Conv1d | nn.Conv2d | Conv3d, x: Tensor) -> Kernels | None:
        """Those of a layer for an input like x, if `Kernels` can replace it."""
        is_plain = layer.bias is None and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        if not is_plain or precision_of(x) != x.dtype:
            return None
        if isinstance(layer, nn.Conv3d) and has_wrong_gradient(layer, x):
            return None
        onednn = isinstance(layer, Conv3d) and layer.is_ours(x)
        return cls(layer.stride, layer.padding, layer.dilation, layer.groups, onednn)  # type: ignore[arg-type]

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.onednn:
            return fast_layout(convolve(x, weight, None, self.padding))
        zeros = [0] * len(self.stride)
        return fast_layout(
            torch.convolution(x, weight, None, self.stride, self.padding, self.dilation, False, zeros, self.groups)
        )

    def input_gradient(self, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """For an input like x."""
        if self.onednn:
            return input_gradient(grad, weight, self.padding)
        return self._by_torch(grad, x, weight, (True, False, False))[0]

    def weight_gradient(self, grad: Tensor, x: Tensor, weight: Tensor, overwrite: Overwrite) -> Tensor:
        """For the input that ``overwrite`` makes of x, or of some of its planes, in place."""
        if self.onednn:
            return weight_gradient(grad, x, weight, self.padding, overwrite)
        return self._by_torch(grad, overwrite(x.clone()), weight, (False, True, False))[1]

    def differentiable_gradients(self, grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Both, by an operator that has derivatives itself."""
        return self._by_torch(grad, x, weight, (True, True, False))[:2]

    def _by_torch(
        self, grad: Tensor, x: Tensor, weight: Tensor, mask: tuple[bool, bool, bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        zeros = [0] * len(self.stride)
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, self.stride, self.padding, self.dilation, False, zeros, self.groups, mask
        )
