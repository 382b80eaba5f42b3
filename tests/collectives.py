"""Record the collective operations of one process without its peers, with a process group that has none.

A run with two processes ends only if both issue the same collective operations in the same order. `record` runs one of
them in this process: it receives what it sends, and each operation is recorded with its place in the code. If the
records of the two processes differ, the run would hang.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.distributed as dist
from lightning_fabric.utilities.distributed import _InfiniteBarrier
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
WORLD_SIZE = 2
BACKEND = "recording"


class Operation(NamedTuple):
    """A collective operation: its name and how many numbers it takes; None if processes may differ."""

    name: str
    size: int | None


class Record(NamedTuple):
    """The operations of a process, each with the functions of this project and Lightning's hooks that called it."""

    operations: list[Operation]
    places: list[str]


class LonelyGroup(dist.ProcessGroup):
    """A process group of one process, in which each peer appears to send what this process sends."""

    def __init__(self, rank: int, size: int, record: Record) -> None:
        super().__init__(rank, size)
        self.record = record

    def getBackendName(self) -> str:
        return BACKEND

    def allreduce(self, tensors: Sequence[Tensor], opts: Any = None) -> Any:
        self.note("allreduce", tensors)
        if opts is not None and opts.reduceOp == dist.ReduceOp.SUM:
            for tensor in tensors:
                tensor.mul_(self.size())
        return _done(tensors)

    def broadcast(self, tensors: Sequence[Tensor], opts: Any = None) -> Any:
        self.note("broadcast", tensors)
        return _done(tensors)

    def allgather(self, outputs: Sequence[Sequence[Tensor]], inputs: Sequence[Tensor], opts: Any = None) -> Any:
        self.note("allgather", inputs)
        for received, sent in zip(outputs, inputs, strict=True):
            for tensor in received:
                tensor.copy_(sent)
        return _done(outputs)

    def barrier(self, opts: Any = None) -> Any:
        self.note("barrier", ())
        return _done(())

    def monitored_barrier(self, *unused: Any) -> None:
        self.note("monitored_barrier", ())

    def note(self, name: str, tensors: Sequence[Tensor]) -> None:
        # Pickled objects may differ in length.
        sizes = [None if tensor.dtype == torch.uint8 else tensor.numel() for tensor in tensors]
        self.record.operations.append(Operation(name, None if None in sizes else sum(sizes)))  # type: ignore[arg-type]
        self.record.places.append(_place())


def record(rank: int, run: Callable[[], object]) -> Record:
    """Call ``run`` as process ``rank`` of two and return the collective operations that it issues."""
    found = Record([], [])
    group = LonelyGroup(rank, WORLD_SIZE, found)

    def broadcast_objects(objects: list[Any], *unused: Any, **options: Any) -> None:
        group.note("broadcast_object_list", ())

    if BACKEND not in dist.Backend.backend_list:
        dist.Backend.register_backend(BACKEND, _create, devices=["cpu"])
    environment = {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD_SIZE), "NODE_RANK": "0"}
    with (
        mock.patch.dict(os.environ, environment),
        # Lightning stores the rank there for the whole process.
        mock.patch.object(rank_zero_only, "rank", rank),
        # The sender determines the length of the pickled objects.
        mock.patch.object(dist, "broadcast_object_list", broadcast_objects),
        # Lightning waits for prepare_data in a separate group.
        mock.patch.object(_InfiniteBarrier, "__enter__", _enter),
        mock.patch.dict(_GROUPS, {rank: group}),
    ):
        dist.init_process_group(BACKEND, store=dist.HashStore(), rank=rank, world_size=WORLD_SIZE)
        try:
            run()
        finally:
            dist.destroy_process_group()
    return found


def assert_same(first: Record, second: Record) -> None:
    """Fail at the first operation that only one process issues, and say where each process is."""
    assert first.operations, "expected collective operations, got none"
    for position in range(max(len(first.operations), len(second.operations))):
        found = [_step(process, position) for process in (first, second)]
        if found[0][0] != found[1][0]:
            lines = [f"process {rank}: {operation} in {place}" for rank, (operation, place) in enumerate(found)]
            raise AssertionError(f"the processes hang at collective operation {position}\n" + "\n".join(lines))


def _step(process: Record, position: int) -> tuple[Operation | None, str]:
    if position >= len(process.operations):
        return None, "nothing: it has ended"
    return process.operations[position], process.places[position]


_GROUPS: dict[int, LonelyGroup] = {}


def _create(store: Any, rank: int, size: int, timeout: Any) -> LonelyGroup:
    return _GROUPS[rank]


def _enter(barrier: _InfiniteBarrier) -> _InfiniteBarrier:
    assert isinstance(dist.group.WORLD, LonelyGroup)
    barrier.barrier = dist.group.WORLD.monitored_barrier
    return barrier


def _done(result: Any) -> Any:
    # A private class of torch, which its own process groups in Python return.
    from torch._C._distributed_c10d import _create_work_from_future

    future: torch.futures.Future = torch.futures.Future()
    future.set_result(result)
    return _create_work_from_future(future)


def _place() -> str:
    frame, names = sys._getframe(2), []
    while frame is not None and len(names) < 4:
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        if file.startswith(str(ROOT / "src")) or "pytorch_lightning/callbacks" in file or function.startswith("on_"):
            names.append(f"{Path(file).stem}.{function}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(names) or "Lightning's own code"
