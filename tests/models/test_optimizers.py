"""Every network trains the same under fused and plain updates, and keeps its bounds under any optimizer."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.invertible import SpectralNormalised
from src.models.density import DensityModel
from tests.models import small_networks
from tests.models.small_networks import CLASSIFIERS, NETWORKS

STEPS = 50
# The i-ConvNet's activations amplify rounding errors tenfold a step, of which fused updates have others.
COMPARED = {name: 15 for name in CLASSIFIERS if name.startswith("iconvnet")}
Optimizer = Callable[..., torch.optim.Optimizer]
FUSED: dict[str, Optimizer] = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "SGD": lambda p, **o: torch.optim.SGD(p, momentum=0.9, nesterov=True, weight_decay=1e-4, **o),
    "Adagrad": torch.optim.Adagrad,
}
# Torch's others, but for those that take sparse gradients or matrices only.
OTHERS: dict[str, Optimizer] = {
    name: optimizer
    for name, optimizer in vars(torch.optim).items()
    if inspect.isclass(optimizer) and name not in {"Optimizer", "SparseAdam", "Muon", *FUSED}
} | {"LBFGS": functools.partial(torch.optim.LBFGS, max_iter=2)}
BOUNDED = ("iresnet", "iresnet-lipswish", "iresnet-flow", "iresnet-flow-roulette")


def network(name: str) -> tuple[nn.Module, Tensor]:
    """A small network in double precision, and a batch that it takes."""
    net, x = small_networks.build(name)
    return net.double(), x.double()


def loss_of(net: nn.Module, x: Tensor) -> Tensor:
    if isinstance(net, DensityModel):
        return net.bits_per_dim(sum(net.log_likelihood(x))).mean()
    return (net(x) - 0.3).square().mean()


def train(name: str, optimizer: Optimizer, **options: Any) -> tuple[list[float], nn.Module]:
    net, x = network(name)
    stepper = optimizer(net.parameters(), lr=2e-3, **options)
    losses = []
    for step in range(STEPS):
        torch.manual_seed(step)  # dequantisation

        def closure() -> Tensor:
            stepper.zero_grad()
            loss = loss_of(net, x)
            loss.backward()
            return loss

        losses.append(stepper.step(closure).item())
    loss_of(net, x)  # the bounds are those at which a network is used
    return losses, net


def assert_bounded(net: nn.Module) -> None:
    for layer in net.modules():
        if isinstance(layer, SpectralNormalised):
            for shape in layer.get_extra_state():
                assert operator_norm(layer, shape) <= layer.coefficient * (1 + 5e-3)  # as exact as σ is found


def operator_norm(layer: SpectralNormalised, shape: tuple[int, ...]) -> float:
    """By power iteration on ``AᵀA``, the transpose by autograd."""
    v = torch.randn(1, *shape, dtype=torch.float64, requires_grad=True)
    offset = layer(torch.zeros_like(v)).detach()
    norm = 0.0
    for _ in range(100):
        image = layer(v) - offset
        norm = float(image.detach().norm() / v.detach().norm())
        (product,) = torch.autograd.grad(image, v, image.detach())
        v = (product / product.norm()).requires_grad_()
    return norm


def cases() -> list[Any]:
    fast = {("iresnet-flow", "AdamW")}
    return [
        pytest.param(net, name, marks=() if (net, name) in fast else pytest.mark.slow)
        for net in NETWORKS
        for name in FUSED
    ]


@pytest.mark.parametrize(("net", "optimizer"), cases())
def test_a_fused_update_gives_the_losses_of_the_plain_one(net: str, optimizer: str) -> None:
    plain, _ = train(net, FUSED[optimizer], fused=False)
    fused, trained = train(net, FUSED[optimizer], fused=True)
    assert all(math.isfinite(loss) for loss in plain)
    compared = COMPARED.get(net, STEPS)
    assert fused[:compared] == pytest.approx(plain[:compared], rel=1e-5)
    assert_bounded(trained)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OTHERS)
@pytest.mark.parametrize("net", BOUNDED)
def test_bounds_hold_under_every_optimizer(net: str, optimizer: str) -> None:
    losses, trained = train(net, OTHERS[optimizer])
    assert all(math.isfinite(loss) for loss in losses)
    assert_bounded(trained)
