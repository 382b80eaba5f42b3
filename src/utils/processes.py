"""The processors of a run and its processes: how long these wait for each other, and what they leave behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pytorch_lightning.strategies import Strategy

# What Lightning sets for the processes that it starts. Where it finds them set, it assumes that a launcher did.
VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
# Seconds that the other processes may take to end after the first one; they have nothing left to do.
PATIENCE_S = 30.0


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def checked_device(**devices: str) -> str:
    """Return the name of a device, the value of a named argument; raise ValueError if it cannot be used here."""
    import torch

    ((argument, name),) = devices.items()
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"expected {argument} as a device of this machine, got {name!r}: {error}") from error
    return name


def distributed(name: str = "ddp", timeout_minutes: float = 30.0, **options: Any) -> Strategy:
    """Return Lightning's strategy for a distributed run.

    Args:
        name: ``ddp`` or ``fsdp``.
        timeout_minutes: how long a process waits for another one before it ends the run with an error.
        options: of the strategy.

    Raises:
        ValueError: for another name, or a timeout that is not positive.
    """
    from pytorch_lightning.strategies import DDPStrategy

    from src.utils.sharding import Sharded

    strategies: dict[str, type[DDPStrategy] | type[Sharded]] = {"ddp": DDPStrategy, "fsdp": Sharded}
    if name not in strategies:
        raise ValueError(f"expected trainer.strategy.name to be one of {', '.join(strategies)}, got {name!r}")
    if not timeout_minutes > 0:
        raise ValueError(f"expected a positive trainer.strategy.timeout_minutes, got {timeout_minutes}")
    return strategies[name](timeout=timedelta(minutes=timeout_minutes), **options)


@contextmanager
def own_processes(trainer: pl.Trainer) -> Iterator[None]:
    """End the processes that ``trainer`` starts inside the block, so that the next run can start its own.

    Processes of a launcher (torchrun, SLURM) are left alone, and so is their process group.
    """
    before = {name: os.environ.get(name) for name in VARIABLES}
    failed = True
    try:
        yield
        failed = False
    finally:
        if started := started_processes(trainer):
            # Lightning watches its list and kills this process when one of them fails, before it can report the error.
            trainer.strategy.launcher.procs.clear()  # type: ignore[union-attr]
            _part(started, failed)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def started_processes(trainer: pl.Trainer) -> list[subprocess.Popen]:
    """Return the processes that ``trainer`` has started on this machine."""
    return list(getattr(trainer.strategy.launcher, "procs", ()))


def _part(processes: list[subprocess.Popen], failed: bool) -> None:
    """Leave the process group and end the other processes."""
    import torch.distributed

    in_group = torch.distributed.is_initialized()
    # With gloo, leaving makes the others stop waiting, with an error. After a failure that is wanted; while they finish
    # it is too early. With NCCL, leaving waits for the others. While they finish that is wanted; after a failure they
    # wait for this process forever.
    leaves_last = in_group and failed == (torch.distributed.get_backend() == "nccl")
    if in_group and not leaves_last:
        torch.distributed.destroy_process_group()
    for process in processes:
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if leaves_last:
        torch.distributed.destroy_process_group()
