"""One row of numbers per sample of a validation or test set, gathered over all processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class SampleTable:
    """Collects rows by sample index; a mean over it counts each sample once.

    A distributed sampler repeats samples to give every process the same number, and batches may differ in size;
    averaging per-batch means would weigh these samples twice.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._parts: list[Tensor] = []
        self._rows: Tensor | None = None

    def add(self, index: Tensor, values: dict[str, Tensor]) -> None:
        """Add a batch: ``index`` (B,), and a value (B,) for every column."""
        assert values.keys() == set(self.columns)
        # Double precision holds every index exactly.
        columns = [index.double(), *(values[name].detach().double() for name in self.columns)]
        self._parts.append(torch.stack(columns, dim=1))

    def gather(self, all_gather: Callable[[Tensor], Any]) -> None:
        """Bring the rows of all processes together, each sample once, ordered by index.

        Args:
            all_gather: Lightning's: returns the rows of the processes stacked, or the rows themselves for one process.
        """
        rows = all_gather(torch.cat(self._parts)).reshape(-1, len(self.columns) + 1)  # (samples, 1 + columns)
        order = torch.argsort(rows[:, 0], stable=True)
        rows = rows[order].cpu()
        first = torch.ones(len(rows), dtype=torch.bool)
        first[1:] = rows[1:, 0] != rows[:-1, 0]
        self._rows = rows[first]

    def column(self, name: str) -> Tensor:
        """Return one column of the gathered samples, shape (samples,)."""
        return self._gathered()[:, 1 + self.columns.index(name)]

    def records(self) -> list[dict[str, float]]:
        """Return one dict per gathered sample: its index and the columns."""
        return [
            {"index": int(row[0]), **dict(zip(self.columns, row[1:], strict=True))} for row in self._gathered().tolist()
        ]

    def _gathered(self) -> Tensor:
        assert self._rows is not None, "gather() comes first"
        return self._rows
