"""Time the simulation of many volumes and the training loader: does a training step wait for its data?"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate

from benchmarks.ct_stages import Setting
from src.config.composition import compose_config
from src.datamodules.foam_ct import FoamCTDataModule
from src.invertible import set_backprop


def datamodule(folder: Path, setting: Setting, num_train: int, **options: Any) -> FoamCTDataModule:
    """The datamodule of a setting, with one validation and one test volume."""
    spec = setting.spec()
    return FoamCTDataModule(str(folder), spec.foam, spec.scan, num_train=num_train, num_val=1, num_test=1, **options)


def generation_seconds(folder: Path, setting: Setting, num_volumes: int, processes: int) -> dict[str, float]:
    """Wall-clock seconds, and CPU seconds of all processes, to simulate and write volumes in parallel."""
    module = datamodule(folder, setting, num_volumes - 2, generation_workers=processes)
    cpu, clock = _cpu_of_all(), time.perf_counter()
    module.prepare_data()
    clock, cpu = time.perf_counter() - clock, _cpu_of_all() - cpu
    return {
        "volumes": num_volumes,
        "processes": processes,
        "seconds": clock,
        "cpu_seconds": cpu,
        "cpu_seconds_per_volume": cpu / num_volumes,
    }


def _cpu_of_all() -> float:
    """CPU seconds of this process and its finished children."""
    return sum(os.times()[:4])


def loader_seconds(module: FoamCTDataModule, num_batches: int) -> float:
    """Seconds per batch of the training loader, after an epoch that starts its workers."""
    loader = module.train_dataloader()
    for _ in loader:
        pass
    start, done = time.perf_counter(), 0
    while done < num_batches:
        done += _length(loader)
    return (time.perf_counter() - start) / done


def _length(batches: Iterable[object]) -> int:
    return sum(1 for _ in batches)


def step_seconds(size: int, batch_size: int, rounds: int) -> float:
    """Median seconds of a training step of ``experiment=ct_postproc``, small scale: forward, backward, update."""
    config = compose_config(["experiment=ct_postproc"])
    torch.manual_seed(0)
    net = instantiate(config.model)
    set_backprop(net, config.backprop)
    optimizer = torch.optim.Adam(net.parameters())
    x, target = torch.randn(2, batch_size, 1, size, size, size)
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(x), target).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])  # the first one warms up


def loader_rows(
    module: FoamCTDataModule, num_workers: tuple[int, ...], num_batches: int, step: float | None
) -> list[dict[str, Any]]:
    """Seconds per batch for each number of workers, beside the seconds of a training step."""
    module.prepare_data()
    rows = []
    for workers in num_workers:
        module.num_workers = workers
        rows.append(
            {
                "size": module.size,
                "batch_size": module.batch_size,
                "num_workers": workers,
                "seconds_per_batch": loader_seconds(module, num_batches),
                "step_seconds": step,
            }
        )
    return rows
