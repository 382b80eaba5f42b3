"""One row of numbers per sample of a validation or test set, gathered over all processes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class SampleTable:
    """Collects rows by sample index; a mean over it counts each sample once.

    A distributed sampler repeats samples so that every process has the same number, and batches may differ in size. A
    mean of the batches' means would count some samples more than others.

    Attributes:
        columns: names of the numbers, those of the first batch.
    """

    def __init__(self) -> None:
        self.columns: tuple[str, ...] = ()
        self._parts: list[Tensor] = []
        self._rows: Tensor | None = None

    def add(self, index: Tensor, values: dict[str, Tensor]) -> None:
        """Add a batch: ``index`` (B,), and a value (B,) for every column."""
        self.columns = self.columns or tuple(values)
        assert values.keys() == set(self.columns)
        # Double precision holds every index exactly.
        columns = [index.double(), *(values[name].detach().double() for name in self.columns)]
        self._parts.append(torch.stack(columns, dim=1))

    def gather(self, all_gather: Callable[[Tensor], Any]) -> None:
        """Collect the rows of all processes, each sample once, ordered by index.

        Args:
            all_gather: Lightning's, which stacks the rows of the processes; of one process it returns the rows.
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
        rows = self._gathered().tolist()
        return [{"index": int(index), **dict(zip(self.columns, row, strict=True))} for index, *row in rows]

    def _gathered(self) -> Tensor:
        assert self._rows is not None, "call gather() first"
        return self._rows
