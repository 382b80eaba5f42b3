"""Two processes that share a batch: with gloo on the CPU, with NCCL on two GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor


def batch() -> Tensor:
    """Four images; rank r has those from the 2r-th one on."""
    return torch.randn(4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def run_two(worker: Callable[..., None], folder: Path, *more: str) -> Path:
    """Run ``worker(rank, rendezvous, folder, *more)`` in two processes, and return the folder that they wrote to."""
    mp.spawn(worker, args=(str(folder / "rendezvous"), str(folder), *more), nprocs=2)
    return folder


@contextmanager
def process_group(rank: int, rendezvous: str, device: str = "cpu") -> Iterator[Tensor]:
    """Make this process a rank of the two, with a GPU of its own for ``cuda``; its part of the batch."""
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = {"cpu": "gloo", "cuda": "nccl"}[device]
    dist.init_process_group(backend, init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    yield batch()[2 * rank : 2 * rank + 2].to(device)
    dist.destroy_process_group()
