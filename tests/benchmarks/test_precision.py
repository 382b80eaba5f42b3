"""A network that leaves autocast in one of its passes says so in the tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.precision import convolution_dtypes, labelled
from src.invertible import POLICIES
from tests.invertible.engine.test_autocast import images, lifted


class _LeavesAutocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).float()
        with torch.autocast("cpu", enabled=False):
            return self.second(x)


def test_the_types_of_both_passes_are_named() -> None:
    net = _LeavesAutocast()
    with torch.autocast("cpu", torch.bfloat16):
        dtypes = convolution_dtypes(net, lambda: net(images()))
    assert dtypes == ["bfloat16", "float32"]
    assert labelled("net", {"convolution_dtypes": dtypes}, bf16=True) == "net (computes in bfloat16 and float32)"
    assert labelled("net", {"convolution_dtypes": ["float32"]}, bf16=False) == "net"
    assert labelled("net", {}, bf16=True) == "net"


def test_every_policy_computes_in_the_precision_of_autocast_in_both_passes() -> None:
    for policy in POLICIES:
        net = lifted(policy)

        def step(net: nn.Module = net) -> None:
            with torch.autocast("cpu", torch.bfloat16):
                y = net(images())
            y.float().square().sum().backward()

        assert convolution_dtypes(net, step) == ["bfloat16"], policy
