"""Rows that count each sample once."""

from __future__ import annotations

import torch

from src.tasks.sample_table import SampleTable


def test_each_sample_counts_once_whatever_the_batches_and_processes() -> None:
    first, second = SampleTable(), SampleTable()
    first.add(torch.tensor([2, 0]), {"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([30.0, 10.0])})
    # The second process has sample 1, and sample 0 again, as a distributed sampler repeats it.
    second.add(torch.tensor([1]), {"a": torch.tensor([2.0]), "b": torch.tensor([20.0])})
    second.add(torch.tensor([0]), {"b": torch.tensor([10.0]), "a": torch.tensor([1.0])})
    other: list[torch.Tensor] = []
    second.gather(lambda rows: other.append(rows) or rows)  # type: ignore[func-returns-value]
    first.gather(lambda rows: torch.stack([rows, other[0]]))
    assert first.column("a").tolist() == [1.0, 2.0, 3.0] and first.column("b").mean() == 20.0
    assert [record["index"] for record in first.records()] == [0, 1, 2]
    assert first.records()[2] == {"index": 2, "a": 3.0, "b": 30.0}
