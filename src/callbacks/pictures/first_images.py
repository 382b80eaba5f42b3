"""The first images of an evaluation, kept for pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class FirstImages:
    """Keeps the "image" of the samples with index 0 … count−1 as they pass by, in the order of their index.

    In a distributed run, those that this process has.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._found: dict[int, Tensor] = {}

    def add(self, batch: dict[str, Any]) -> None:
        """Keep what a batch has of them."""
        for position, index in enumerate(batch["index"].tolist()):
            if index < self.count:
                self._found[index] = batch["image"][position].detach()

    def take(self) -> Tensor | None:
        """Return the images (n, C, H, W) and forget them; None if there were none."""
        found, self._found = self._found, {}
        return torch.stack([found[index] for index in sorted(found)]) if found else None
