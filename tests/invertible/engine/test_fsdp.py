"""FSDP shares the parameters out over two gloo processes: which policies give the gradients of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from src.config.combinations import SHARDED
from src.invertible import set_backprop
from src.models.iunet import IUNet
from src.models.lifted import Lifted
from tests.invertible.engine.two_processes import batch, process_group, run_two


def network(policy: str) -> nn.Module:
    torch.manual_seed(0)
    net = Lifted(1, 1, IUNet((4, 8), 2, 2, mixing={"init": "random"})).double()
    for parameter in net.parameters():  # some start at zero, and then others have no gradient
        nn.init.normal_(parameter, std=0.3)
    set_backprop(net, policy)
    return net


def loss(y: Tensor) -> Tensor:
    """A mean that orthogonal matrices change, which a mean of squares is not."""
    return y.sin().mean()


def worker(rank: int, rendezvous: str, folder: str) -> None:
    with process_group(rank, rendezvous) as part:
        for policy in SHARDED:
            net = FullyShardedDataParallel(network(policy), device_id=torch.device("cpu"), use_orig_params=True)
            loss(net(part)).backward()
            with FullyShardedDataParallel.summon_full_params(net, with_grads=True):
                result = [parameter.grad.clone() for parameter in net.parameters()]
            torch.save(result, Path(folder) / f"{policy}-{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_two(worker, tmp_path_factory.mktemp("fsdp"))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("policy", SHARDED)
def test_sharded_parameters_get_the_gradients_of_one_process(folder: Path, policy: str, rank: int) -> None:
    net = network("stored")
    loss(net(batch())).backward()
    for found, parameter in zip(torch.load(folder / f"{policy}-{rank}.pt"), net.parameters(), strict=True):
        assert parameter.grad is not None and parameter.grad.any()
        torch.testing.assert_close(found, parameter.grad, rtol=1e-9, atol=1e-12)
