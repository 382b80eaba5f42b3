"""Means that count each volume once."""

from __future__ import annotations

import torch

from src.tasks.volume_table import VolumeTable


def test_each_volume_counts_once_whatever_the_batches_and_processes() -> None:
    first, second = VolumeTable(["a", "b"]), VolumeTable(["a", "b"])
    first.add(torch.tensor([2, 0]), torch.tensor([[3.0, 30.0], [1.0, 10.0]]))
    # The second process has volume 1, and volume 0 again, as a distributed sampler repeats it.
    second.add(torch.tensor([1]), torch.tensor([[2.0, 20.0]]))
    second.add(torch.tensor([0]), torch.tensor([[1.0, 10.0]]))
    other: list[torch.Tensor] = []
    second.gather(lambda rows: other.append(rows) or rows)  # type: ignore[func-returns-value]
    first.gather(lambda rows: torch.stack([rows, other[0]]))
    assert first.means() == {"a": 2.0, "b": 20.0}
    assert [record["index"] for record in first.records()] == [0, 1, 2]
    assert first.records()[2] == {"index": 2, "a": 3.0, "b": 30.0}
