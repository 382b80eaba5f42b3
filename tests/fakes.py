"""A datamodule without a simulation, for tests of everything around it, and callbacks that disturb a run."""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from src.ct.simulation import ScanSpec
from src.datamodules.foam_volumes import random_cube_symmetry
from src.datamodules.loaders import TrainingLoader
from src.loggers.tensorboard_logger import TensorBoardRun


class BoxVolumes(Dataset):
    """Random boxes as targets, with noise as inputs; item i of a set is the same in every process."""

    def __init__(self, size: int, count: int, seed: int, augment: bool = False) -> None:
        self.size, self.count, self.seed, self.augment = size, count, seed, augment

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        low = torch.randint(0, self.size // 2, (3,), generator=generator).tolist()
        target = torch.zeros(1, self.size, self.size, self.size)
        target[(0, *(slice(start, start + self.size // 2) for start in low))] = 1.0
        noise = 0.3 * torch.randn(target.shape, generator=generator)
        volumes = torch.cat([target + noise, target])
        if self.augment:
            volumes = random_cube_symmetry(volumes)
        return {"input": volumes[:1], "target": volumes[1:], "index": torch.tensor(index)}


class SplitLoaders(pl.LightningDataModule):
    """Three splits with their own seeds; a subclass makes their loaders."""

    def _loader(self, name: str, seed: int) -> DataLoader:
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader:
        return self._loader("train", 1)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val", 2)

    def test_dataloader(self) -> DataLoader:
        return self._loader("test", 3)


class TinyVolumes(SplitLoaders):
    """Takes the arguments of FoamCTDataModule, so that a configuration only has to name another class."""

    data_range = 1.0

    def __init__(
        self,
        scan: ScanSpec,
        num_train: int,
        num_val: int,
        num_test: int,
        batch_size: int = 1,
        num_workers: int = 0,
        augment: bool = False,
        **unused: Any,
    ) -> None:
        super().__init__()
        self.size = scan.size
        self.sample_shape = (1, self.size, self.size, self.size)
        self.counts = {"train": num_train, "val": num_val, "test": num_test}
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.augment = augment

    def _loader(self, name: str, seed: int) -> DataLoader:
        dataset = BoxVolumes(self.size, self.counts[name], seed, augment=self.augment and name == "train")
        if name == "train":
            return TrainingLoader(dataset, self.trainer, batch_size=self.batch_size, num_workers=self.num_workers)
        return DataLoader(dataset, self.batch_size)


class SignalAfter(pl.Callback):
    """Sends this process a signal after a training step, like a user or a scheduler."""

    def __init__(self, signum: int, step: int, rank: int = 0) -> None:
        self.signum, self.step, self.rank = signum, step, rank

    def on_train_batch_end(self, trainer: pl.Trainer, *unused: Any) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            signal.raise_signal(signal.Signals(self.signum))


class SignalInTest(SignalAfter):
    """Sends the signal after a batch of the test instead."""

    def on_train_batch_end(self, *unused: Any) -> None:
        """Do not disturb the training."""

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx + 1 == self.step and trainer.global_rank == self.rank:
            signal.raise_signal(signal.Signals(self.signum))


class NoisyGradients(pl.Callback):
    """Adds noise from every generator to the gradients, so that other random numbers give other final weights."""

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        noise = torch.rand(()) + np.random.rand() + random.random()  # noqa: NPY002
        for parameter in pl_module.parameters():
            parameter.grad += 0.01 * noise * torch.randn_like(parameter)


class NaNBatches(pl.Callback):
    """Fills the training batches of one process with NaN."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, *rest: Any) -> None:
        if trainer.global_rank == self.rank:
            batch["input"].fill_(float("nan"))


class ToNaN(nn.Module):
    """A network whose output is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight * float("nan")


def tiny_overrides(run_dir: object, *more: str) -> list[str]:
    """Return the command-line arguments of a run on :class:`TinyVolumes` that takes seconds."""
    return [
        "datamodule._target_=tests.fakes.TinyVolumes",
        "datamodule.scan.size=16",
        "datamodule.num_train=4",
        "datamodule.num_val=3",
        "datamodule.num_test=3",
        "datamodule.batch_size=2",
        "network.blowup=4",
        "network.num_couplings=1",
        "network.num_levels=2",
        "trainer.max_epochs=2",
        "callbacks.images.num_volumes=1",
        "logger=csv",
        f"run_dir={run_dir}",
        *more,
    ]


class Hang(pl.Callback):
    """After a training step, makes one process wait for an operation that the other never issues, so that both hang."""

    def __init__(self, step: int, rank: int = 1) -> None:
        self.step, self.rank = step, rank

    def on_train_batch_end(self, trainer: pl.Trainer, *unused: Any) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            print("waiting in vain", flush=True)
            torch.distributed.recv(torch.zeros(1), src=1 - self.rank)


class BrokenTracker(TensorBoardRun):
    """A tracker that cannot be opened, or opens and then fails in every call; it records the calls."""

    asked: ClassVar[list[str]] = []

    def __init__(self, can_be_opened: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self.can_be_opened = can_be_opened

    @property
    def experiment(self) -> Any:
        self.asked.append("experiment")
        if not self.can_be_opened:
            raise ConnectionError("no server")
        return self

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("add_"):
            raise AttributeError(name)
        self.asked.append(name)
        raise OSError(28, "No space left on device")

    def finish(self, summary: dict[str, Any]) -> None:
        self.asked.append(f"finish {(Path(summary['run_dir']) / 'summary.json').exists()}")
        raise RuntimeError("gone")


class RemoveTemporaryFiles(pl.Callback):
    """Clears the temporary folder after the training has started, as some systems do at night."""

    def on_train_start(self, *unused: Any) -> None:
        shutil.rmtree(os.environ["TMPDIR"])
