"""Data loaders: their settings, and training batches in an order that no interruption or number of workers changes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from src.utils.errors import check_range
from src.utils.random_stream import own_stream


class EpochSampler(DistributedSampler):
    """Draws the samples of an epoch: pairs of an index and a seed for the sample's own random numbers.

    Order and seeds are functions of the run's seed and the epoch. Of ``num_replicas`` R processes, ``rank`` r takes
    every R-th pair, starting with the r-th, so that R processes with batches of b see what one process sees with
    batches of R·b. The next iteration skips ``start`` pairs of this process. (Lightning leaves a loader with a
    DistributedSampler as it is; with one process it is a plain sampler.)
    """

    def __init__(self, dataset: Dataset, seed: int, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, seed=seed)
        self.start = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the pairs of the epoch, and move on to the next epoch; Lightning also sets the epoch itself."""
        size = len(self.dataset)  # type: ignore[arg-type]
        (entropy,) = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(entropy))
        order = torch.randperm(size, generator=generator)
        seeds = torch.randint(2**63 - 1, (size,), generator=generator)
        # All processes have equally many: the first samples come again where the last batch would lack some.
        order = order.repeat(math.ceil(self.total_size / size))[: self.total_size]
        mine = order[self.rank :: self.num_replicas][self.start :]
        self.epoch += 1
        yield from zip(mine.tolist(), seeds[mine].tolist(), strict=True)


@dataclass(eq=False)
class Seeded(Dataset):
    """A data set whose items draw from streams of their own: torch's generator is seeded for each item.

    A batch that ``dataset`` returns as a whole, by ``__getitems__``, has one stream.
    """

    dataset: Dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, pair: tuple[int, int]) -> Any:
        index, seed = pair
        with own_stream(seed, torch.device("cpu")):
            return self.dataset[index]

    def __getitems__(self, pairs: Sequence[tuple[int, int]]) -> Any:
        """Return a whole batch; torch's DataLoader looks for this name."""
        if not hasattr(self.dataset, "__getitems__"):
            return [self[pair] for pair in pairs]
        with own_stream(pairs[0][1], torch.device("cpu")):
            return self.dataset.__getitems__([index for index, _ in pairs])


class TrainingLoader(DataLoader):
    """The shuffled batches of a training set; a run that is resumed in the middle of an epoch gets the rest of it.

    Args:
        dataset: draws its random numbers from torch's generator.
        trainer: knows the position in the epoch and which process this is; None: one process, from the beginning.
        settings: further arguments of DataLoader.
    """

    def __init__(self, dataset: Dataset, trainer: pl.Trainer | None, **settings: Any) -> None:
        self._trainer = trainer
        # Samples that a batch of all processes had in the training that is resumed.
        self._samples_per_batch: int | None = None
        processes = (trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)
        super().__init__(
            Seeded(dataset),
            sampler=EpochSampler(dataset, torch.initial_seed(), *processes),
            generator=own_generator(),
            **settings,
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches from the trainer's position on.

        Nothing is drawn before the first batch is asked for: Lightning makes the iterator of a resumed epoch before it
        has set the epoch's number.
        """
        batches_done = self._trainer.fit_loop.batch_idx + 1 if self._trainer is not None else 0
        assert isinstance(self.sampler, EpochSampler) and self.batch_size is not None
        per_batch = self._samples_per_batch or self.batch_size * self.sampler.num_replicas
        self.sampler.start = batches_done * per_batch // self.sampler.num_replicas
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Return how many samples a batch of all processes has; seed, epoch and batch are in the checkpoint already."""
        assert isinstance(self.sampler, EpochSampler) and self.batch_size is not None
        return {"samples_per_batch": self.batch_size * self.sampler.num_replicas}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, nothing of an earlier version."""
        self._samples_per_batch = state_dict.get("samples_per_batch")


def own_generator() -> torch.Generator:
    """Return a generator for a DataLoader, which otherwise draws the seed of its workers from the training's stream."""
    return torch.Generator()


class SplitDataModule(pl.LightningDataModule):
    """A training, a validation and a test set, whose loaders share their settings.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, batch_size: int, num_workers: int = 0, pin_memory: bool = False) -> None:
        super().__init__()
        check_range(1, batch_size=batch_size)
        check_range(0, num_workers=num_workers)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.sets: dict[str, Dataset[Any]] = {}

    def dataset(self, split: str) -> Dataset[Any]:
        """Return the samples of "train", "val" or "test", which a subclass puts into ``sets`` or makes here."""
        return self.sets[split]

    def settings(self, split: str) -> dict[str, Any]:
        """Return the arguments of a split's DataLoader."""
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": self.pin_memory,
        }

    def loader(self, split: str) -> DataLoader[Any]:
        """Return the batches of a split: shuffled to train with, otherwise in fixed order."""
        if split == "train":
            return TrainingLoader(self.dataset(split), self.trainer, **self.settings(split))
        return DataLoader(self.dataset(split), generator=own_generator(), **self.settings(split))

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training batches, shuffled and, if asked for, augmented."""
        return self.loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation batches in fixed order."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test batches in fixed order."""
        return self.loader("test")
