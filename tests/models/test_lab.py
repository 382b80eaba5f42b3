"""The lab's two networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from src.models.lab import LabIRevNet, LabNet
from tests.models.policies import assert_policy_is_exact


def lab_psi(x: torch.Tensor, block: int) -> torch.Tensor:
    """The lab's formula."""
    n, d, h, w = x.shape[0], x.shape[1], x.shape[2] // block, x.shape[3] // block
    return x.reshape(n, d, h, block, w, block).permute(0, 3, 5, 1, 2, 4).reshape(n, d * block**2, h, w)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((found - expected).norm() / expected.norm()).detach())


def test_psi_is_the_labs() -> None:
    x = torch.randn(2, 1, 28, 28)
    assert torch.equal(LabNet().psi(x), lab_psi(x, 4))


def test_the_layers_are_the_labs_up_to_the_order_of_channels() -> None:
    torch.manual_seed(0)
    net, x = LabIRevNet(), torch.randn(2, 1, 28, 28)
    first, second = lab_psi(x, 4).chunk(2, dim=1)  # the lab's X = [x, x̃]
    for i in range(1, 5):
        # [x, x̃] ↦ [F(x) + x̃, x]
        first, second = net.features[i].subnet(first) + second, first  # type: ignore[operator]
    torch.testing.assert_close(net.encode(x), torch.cat((first, second), dim=1))


def test_the_image_comes_back_to_single_precision_also_after_training() -> None:
    torch.manual_seed(0)
    net, x = LabIRevNet(), torch.rand(64, 1, 28, 28)
    labels = torch.randint(10, (64,))
    assert relative_error(net.inverse(net.encode(x)), x) <= 1e-6
    optimizer = torch.optim.SGD(net.parameters(), lr=0.04, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), labels).backward()
        optimizer.step()
    assert relative_error(net.inverse(net.encode(x)), x) <= 1e-6


@pytest.mark.parametrize("policy", ["reversible", "checkpoint", "memcnn"])
def test_gradients_are_exact_under_every_policy(policy: str) -> None:
    torch.manual_seed(0)
    assert_policy_is_exact(LabIRevNet(size=8).double(), torch.randn(2, 1, 8, 8, dtype=torch.float64), policy)


@pytest.mark.parametrize(("net", "count"), [(LabNet, 4 * (16 * 16 * 49 + 16)), (LabIRevNet, 4 * (8 * 8 * 49 + 8))])
def test_the_parameters_are_the_labs(net: Any, count: int) -> None:
    assert sum(p.numel() for p in net().parameters()) == count + 784 * 10 + 10
    assert net(in_channels=3, size=32)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (LabNet, {"size": 30}, "divisible by block_size 4, got 30"),
        (LabNet, {"kernel_size": 4}, "odd kernel_size"),
        (LabIRevNet, {"block_size": 1}, "even number of channels"),
    ],
)
def test_options_that_cannot_work_are_refused(net: Any, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        net(**options)
