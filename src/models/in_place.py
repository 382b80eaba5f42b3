"""Activations that overwrite their input, which saves a tensor per layer where the layer before needs it no more.

With ``inplace=True``, those of torch raise where somebody watches gradients by `Module.register_full_backward_hook`.
"""

from __future__ import annotations

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
    """Not what a module with a full backward hook gets, or hands on: views by which torch notices gradients."""
    # A compiler asks no tensor for its graph, and makes copies where they are needed.
    return torch.compiler.is_compiling() or type(x.grad_fn).__name__ != "BackwardHookFunctionBackward"
