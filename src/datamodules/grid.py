"""Sizes to measure at, one per batch."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.datamodules.training_loader import own_generator


class Cells(Dataset):
    """Items are dicts of integers: "channels", "size" and "index"."""

    def __init__(self, cells: Sequence[tuple[int, int]]) -> None:
        self.cells = list(cells)

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        channels, size = self.cells[index]
        return {"channels": torch.tensor(channels), "size": torch.tensor(size), "index": torch.tensor(index)}


class GridDataModule(pl.LightningDataModule):
    """A test set of image sizes: ``channels`` varied at ``base_size``, then ``sizes`` varied at ``base_channels``.

    Args:
        channels, sizes: what is varied.
        base_channels, base_size: what is held fixed meanwhile.

    Raises:
        ValueError: for numbers below 1.
    """

    def __init__(
        self, channels: Sequence[int], sizes: Sequence[int], base_channels: int = 64, base_size: int = 8
    ) -> None:
        super().__init__()
        if min([*channels, *sizes, base_channels, base_size]) < 1:
            raise ValueError(f"expected positive channels and sizes, got {list(channels)} and {list(sizes)}")
        self.cells = [(c, base_size) for c in channels] + [(base_channels, n) for n in sizes]

    def test_dataloader(self) -> DataLoader:
        """Return one cell per batch."""
        return DataLoader(Cells(self.cells), batch_size=1, generator=own_generator())
