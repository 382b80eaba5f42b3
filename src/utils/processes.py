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
# How long the other processes may take to end after the first one is done, in seconds; they have nothing left to do.
PATIENCE_S = 30.0


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def distributed(name: str = "ddp", timeout_minutes: float = 30.0, **options: Any) -> Strategy:
    """Return how the processes share the work.

    Args:
        name: ``ddp`` or ``fsdp``.
        timeout_minutes: how long a process waits for another one before it ends the run with an error.
        options: of Lightning's strategy.

    Raises:
        ValueError: for another name, or a timeout that is not positive.
    """
    from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy

    strategies = {"ddp": DDPStrategy, "fsdp": FSDPStrategy}
    if name not in strategies:
        raise ValueError(f"expected trainer.strategy.name to be one of {', '.join(strategies)}, got {name!r}")
    if not timeout_minutes > 0:
        raise ValueError(f"expected a positive trainer.strategy.timeout_minutes, got {timeout_minutes}")
    return strategies[name](timeout=timedelta(minutes=timeout_minutes), **options)


@contextmanager
def own_processes(trainer: pl.Trainer) -> Iterator[None]:
    """Inside, ``trainer`` may start processes; outside, nothing is left of them: the next run starts its own.

    Processes that still wait for this one, which has failed or is done, are ended. A launcher's (torchrun's, SLURM's)
    are its own business, and the group that they form serves the next run too.
    """
    before = {name: os.environ.get(name) for name in VARIABLES}
    failed = True
    try:
        yield
        failed = False
    finally:
        started = _take_processes(trainer)
        if started:
            _part(started, failed)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def started_processes(trainer: pl.Trainer) -> list[subprocess.Popen]:
    """Return the processes that ``trainer`` has started on this machine."""
    return list(getattr(trainer.strategy.launcher, "procs", ()))


def _take_processes(trainer: pl.Trainer) -> list[subprocess.Popen]:
    started = started_processes(trainer)
    if started:
        # Lightning watches this list, and kills this process when one of them has ended with an error: this process is
        # about to say which.
        trainer.strategy.launcher.procs.clear()  # type: ignore[union-attr]
    return started


def _part(processes: list[subprocess.Popen], failed: bool) -> None:
    """Leave the group and end the others."""
    import torch.distributed

    in_group = torch.distributed.is_initialized()
    # With gloo a process that leaves ends the waiting of the others, with an error: good after a failure, and too early
    # while they finish. With NCCL a process that leaves waits for the others: good while they finish, and for ever
    # where they wait for this one, which has failed.
    leaves_last = in_group and failed == (torch.distributed.get_backend() == "nccl")
    if in_group and not leaves_last:
        torch.distributed.destroy_process_group()
    for process in processes:
        _end(process)
    if leaves_last:
        torch.distributed.destroy_process_group()


def _end(process: subprocess.Popen) -> None:
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
