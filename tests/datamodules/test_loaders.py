"""The order of training batches, and the random numbers of their samples."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from src.datamodules.loaders import EpochSampler, TrainingLoader


class Noisy(Dataset):
    """Items are their index and a random number."""

    def __init__(self, size: int = 10) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"index": torch.tensor(index), "noise": torch.rand(())}


class NoisyBatches(Noisy):
    def __getitems__(self, indices: list[int]) -> list[dict[str, Tensor]]:
        return [self[index] for index in indices]


def trainer(batches_done: int = 0, world_size: int = 1, rank: int = 0) -> Any:
    fit_loop = SimpleNamespace(batch_idx=batches_done - 1)
    return SimpleNamespace(fit_loop=fit_loop, world_size=world_size, global_rank=rank)


def epoch(loader: TrainingLoader, number: int) -> list[dict[str, Tensor]]:
    loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
    return list(loader)


def same(first: list[dict[str, Tensor]], second: list[dict[str, Tensor]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in a
    )


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(3)


def test_every_sample_once_an_epoch_in_another_order_with_other_noise() -> None:
    loader = TrainingLoader(Noisy(), None, batch_size=4)
    first, second = list(loader), list(loader)
    assert [len(batch["index"]) for batch in first] == [4, 4, 2] and len(loader) == 3
    indices = [torch.cat([batch["index"] for batch in batches]).tolist() for batches in (first, second)]
    assert sorted(indices[0]) == sorted(indices[1]) == list(range(10))
    assert indices[0] != indices[1] and indices[0] != list(range(10))
    noise = torch.cat([batch["noise"] for batch in [*first, *second]])
    assert len(set(noise.tolist())) == 20
    assert same(epoch(loader, 1), second)


@pytest.mark.parametrize("data", [Noisy(), NoisyBatches()])
def test_workers_the_position_and_the_rest_of_the_program_change_nothing(data: Noisy) -> None:
    whole = epoch(TrainingLoader(data, trainer(), batch_size=3), 2)
    assert same(epoch(TrainingLoader(data, trainer(), batch_size=3, num_workers=2), 2), whole)
    torch.rand(5)
    for done in range(4):
        assert same(epoch(TrainingLoader(data, trainer(done), batch_size=3), 2), whole[done:])


@pytest.mark.parametrize(("batch_size", "world_size"), [(3, 2), (12, 1), (2, 1)])
def test_batches_of_another_size_go_on_with_the_samples_that_are_left(batch_size: int, world_size: int) -> None:
    before = TrainingLoader(Noisy(60), trainer(), batch_size=6)
    seen = torch.cat([batch["index"] for batch in epoch(before, 2)[:4]])
    left: list[int] = []
    for rank in range(world_size):
        loader = TrainingLoader(Noisy(60), trainer(4, world_size, rank), batch_size=batch_size)
        loader.load_state_dict(before.state_dict())
        left += torch.cat([batch["index"] for batch in epoch(loader, 2)]).tolist()
    assert sorted([*seen.tolist(), *left]) == list(range(60))


def test_another_seed_is_another_order() -> None:
    first = epoch(TrainingLoader(Noisy(), None, batch_size=10), 0)
    torch.manual_seed(4)
    assert not same(epoch(TrainingLoader(Noisy(), None, batch_size=10), 0), first)


def test_the_training_stream_is_not_touched() -> None:
    before = torch.get_rng_state()
    for workers in (0, 1):
        list(TrainingLoader(Noisy(), None, batch_size=4, num_workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [10, 12])
def test_two_processes_see_together_what_one_sees(size: int) -> None:
    whole = epoch(TrainingLoader(Noisy(size), trainer(), batch_size=4), 1)
    ranks = [epoch(TrainingLoader(Noisy(size), trainer(world_size=2, rank=r), batch_size=2), 1) for r in (0, 1)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        rows = {
            name: torch.stack([part[name] for part in parts], dim=1).flatten()[: len(batch[name])] for name in batch
        }
        assert same([rows], [batch])


def test_the_position_is_asked_for_when_the_first_batch_is() -> None:
    state = trainer()
    loader = TrainingLoader(Noisy(), state, batch_size=2)
    batches = iter(loader)
    loader.sampler.set_epoch(5)  # type: ignore[attr-defined]
    state.fit_loop.batch_idx = 1
    assert same(list(batches), epoch(TrainingLoader(Noisy(), trainer(2), batch_size=2), 5))


def test_fewer_samples_than_processes_are_repeated() -> None:
    pairs = [list(EpochSampler(Noisy(2), seed=0, num_replicas=5, rank=rank)) for rank in range(5)]
    assert [len(own) for own in pairs] == [1] * 5 and {own[0][0] for own in pairs} == {0, 1}
