"""Two processes give the gradients of one process on the whole batch: regression, classification, a flow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from src.invertible import (
    ActNorm,
    AdditiveCoupling,
    Downsampling,
    GlowCoupling,
    InvertibleConv1x1,
    InvertibleModule,
    Sequential,
    set_backprop,
)
from src.models.iunet import IUNet
from src.models.lifted import Lifted
from tests.invertible.engine.two_processes import batch, process_group, run_two
from tests.invertible.table.samples import subnet
from tests.marks import gpu


class Loss(nn.Module):
    """A network with its loss, so that one call of forward is one step: DDP hooks into that call only."""

    def __init__(self, net: nn.Module, loss: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net = net
        self.loss = loss

    def forward(self, x: Tensor) -> Tensor:
        return self.loss(self.net, x)


def squared(net: nn.Module, x: Tensor) -> Tensor:
    return (net(x) ** 2).mean()


def cross_entropy(net: nn.Module, x: Tensor) -> Tensor:
    labels = (x.flatten(1).sum(1) > 0).long()
    return F.cross_entropy(net(x), labels)


def negative_log_likelihood(net: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(net, InvertibleModule)
    z, logdet = net.forward_and_logdet(x)
    return (0.5 * z.square().flatten(1).sum(1) - logdet).mean()


def regression() -> Loss:
    return Loss(Lifted(1, 1, IUNet((4, 8), 2, 2, mixing={"init": "random"})), squared)


def classification() -> Loss:
    features = Sequential(
        Downsampling(1, 2, spatial_dims=2),
        AdditiveCoupling(4, subnet(2)),
        Downsampling(4, 2, spatial_dims=2),
        AdditiveCoupling(16, subnet(2), flip=True),
    )
    return Loss(nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)), cross_entropy)


def flow() -> Loss:
    blocks = [Sequential(ActNorm(4), InvertibleConv1x1(4), GlowCoupling(4, subnet(2))) for _ in range(2)]
    return Loss(Sequential(Downsampling(1, 2, spatial_dims=2), *blocks), negative_log_likelihood)


STEPS = {"regression": regression, "classification": classification, "flow": flow}


def step(name: str) -> Loss:
    torch.manual_seed(0)
    loss = STEPS[name]().double()
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    set_backprop(loss, "reversible")
    return loss


def worker(rank: int, rendezvous: str, folder: str, device: str) -> None:
    with process_group(rank, rendezvous, device) as part:
        for name in STEPS:
            wrapped = DistributedDataParallel(step(name).to(device))
            for _ in range(2):  # twice: a hook that fired more than once a step would break the second
                wrapped.zero_grad()
                wrapped(part).backward()
            grads = [p.grad.cpu() for p in wrapped.module.parameters() if p.grad is not None]
            torch.save(grads, Path(folder) / f"{name}-{rank}.pt")


@pytest.fixture(scope="module", params=["cpu", gpu("cuda", count=2)])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_two(worker, tmp_path_factory.mktemp("ddp"), request.param)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", STEPS)
def test_two_ranks_give_the_gradients_of_one_process(folder: Path, name: str, rank: int) -> None:
    loss = step(name)
    for _ in range(2):
        loss.zero_grad()
        loss(batch()).backward()
    for found, parameter in zip(torch.load(folder / f"{name}-{rank}.pt"), loss.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-9, atol=1e-12)
