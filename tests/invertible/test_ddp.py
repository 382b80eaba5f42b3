"""Two gloo processes give the gradients of one process on the whole batch."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from src.invertible import set_backprop
from src.models.iunet import IUNet
from src.models.lifted import Lifted


def network() -> nn.Module:
    torch.manual_seed(0)
    net = Lifted(1, 1, IUNet((4, 8), 2, 2, mixing={"init": "random"})).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    set_backprop(net, "reversible")
    return net


def batch() -> Tensor:
    return torch.randn(4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def worker(rank: int, rendezvous: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    net = DistributedDataParallel(network())
    for _ in range(2):  # twice: a hook that fired more than once a step would break the second
        net.zero_grad()
        (net(batch()[2 * rank : 2 * rank + 2]) ** 2).mean().backward()
    torch.save([p.grad for p in net.module.parameters()], Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_give_the_gradients_of_one_process(tmp_path: Path) -> None:
    mp.spawn(worker, args=(str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=2)
    net = network()
    (net(batch()) ** 2).mean().backward()
    for rank in range(2):
        for found, parameter in zip(torch.load(tmp_path / f"{rank}.pt"), net.parameters(), strict=True):
            torch.testing.assert_close(found, parameter.grad, rtol=1e-9, atol=1e-12)
