"""What a training step has alive at its worst moment, in bytes."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from benchmarks.live_bytes import LiveBytes
from src.invertible import set_backprop
from src.models.blocks import ConvBlock
from src.models.iunet import IUNet

CHANNELS = (8, 16)


def peak(num_couplings: int, policy: str) -> int:
    """Bytes beyond weights and their gradients, which grow with the depth under any policy."""
    torch.manual_seed(0)
    subnet = functools.partial(ConvBlock, spatial_dims=2, depth=2)
    net = nn.Sequential(nn.Conv2d(1, 8, 1), IUNet(CHANNELS, num_couplings, 2, subnet=subnet), nn.Conv2d(8, 1, 1))
    set_backprop(net, policy)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weights = sum(p.numel() * p.element_size() for p in net[1].parameters())
    with LiveBytes() as live:
        net(torch.zeros(1, 1, 64, 64)).square().mean().backward()
    return live.peak - weights  # the engine collects gradients before autograd adds them


def test_the_peak_does_not_grow_with_the_depth() -> None:
    assert peak(32, "reversible") <= 1.03 * peak(2, "reversible")


def test_the_peak_is_below_that_of_every_other_policy() -> None:
    ours = peak(4, "reversible")
    for policy in ("memcnn", "checkpoint", "stored"):
        assert ours < peak(4, policy)


@pytest.mark.parametrize("num_couplings", [2, 8])
def test_the_peak_is_what_the_docs_say(num_couplings: int) -> None:
    state = 4 * 8 * 64 * 64
    # State and gradient, which are walked back in place; five halves for the subnet's graph and its gradients.
    assert peak(num_couplings, "reversible") <= 1.05 * (2 + 5 / 2) * state


def test_the_peak_of_volumes_is_what_the_docs_say() -> None:
    torch.manual_seed(0)
    net = IUNet(CHANNELS, 2, 3)
    set_backprop(net, "reversible")
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    x = torch.zeros(1, 8, 32, 32, 32).to(memory_format=torch.channels_last_3d).requires_grad_()  # type: ignore[call-overload]
    with LiveBytes() as live:
        net(x * 1.0).sum().backward()  # a loss that needs no memory itself
    # State and gradient; two halves that the subnet's graph keeps, and one for a gradient or a rebuilt input.
    # The halves of a volume that the weight's gradient is computed from overlap by two planes each.
    assert live.peak - weights <= 1.03 * (2 + 3 / 2 + 2 / 32) * 4 * x.numel()
