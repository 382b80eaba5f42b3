"""What every network with invertible parts must show under every backprop policy."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from src.invertible import set_backprop


def step(net: nn.Module, x: Tensor, policy: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of one training step of a copy, and its buffers afterwards."""
    net = copy.deepcopy(net)
    set_backprop(net, policy)
    x = x.clone().requires_grad_()
    net(x).square().sum().backward()
    assert x.grad is not None
    found = {"x": x.grad}
    found |= {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return found, {name: buffer.clone() for name, buffer in net.named_buffers()}


def assert_policy_is_exact(net: nn.Module, x: Tensor, policy: str) -> None:
    """Gradients and statistics after one step are those of plain autograd, in double precision."""
    (expected, expected_buffers), (found, found_buffers) = step(net, x, "stored"), step(net, x, policy)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-9 * float(value.abs().max().clamp(min=1.0)))
    for name, value in expected_buffers.items():
        torch.testing.assert_close(found_buffers[name], value, rtol=1e-10, atol=1e-12)
