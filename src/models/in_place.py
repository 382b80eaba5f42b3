"""Activations that overwrite their input, which saves a tensor per layer where the layer before does not need it.

With ``inplace=True``, torch's own raise in a module with a full backward hook:
https://github.com/pytorch/pytorch/issues/61519.
"""

import torch
from torch import Tensor, nn


class ReLU(nn.ReLU):
    """`torch.nn.ReLU`; in place only where autograd allows it."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x, inplace=self.inplace and _may_be_overwritten(x))


class LeakyReLU(nn.LeakyReLU):
    """`torch.nn.LeakyReLU`; in place only where autograd allows it."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(x, self.negative_slope, inplace=self.inplace and _may_be_overwritten(x))


def _may_be_overwritten(x: Tensor) -> bool:
    """Whether ``x`` is none of the views by which torch watches the gradients of a module with a full backward hook."""
    # A compiler asks no tensor for its graph, and makes copies where they are needed.
    return torch.compiler.is_compiling() or type(x.grad_fn).__name__ != "BackwardHookFunctionBackward"
