"""Preprocessed pairs as samples: random crops for training, whole images for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from src.datamodules.crops import read_crop
from src.datamodules.pairs.cache import IMAGES, CachedPair

Sample = dict[str, Any]


@dataclass(eq=False)
class WholePairs(Dataset[Sample]):
    """Whole images: "input" (C_in, *spatial), "target" (C_target, *spatial) and "index"."""

    pairs: Sequence[CachedPair]
    input_channels: int

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        images = torch.from_numpy(np.array(self.pairs[index].array(IMAGES)))
        return _sample(images, self.input_channels, index)


@dataclass(eq=False)
class PairCrops(Dataset[Sample]):
    """Random crops, ``crops_per_pair`` of each pair: "input", "target", "index" of the pair.

    All places in a pair are equally likely. An image that is smaller than a crop lies at a random place of it, with
    zeros around it. All draws are from torch's global generator; see `src.datamodules.loaders.Seeded`.
    """

    pairs: Sequence[CachedPair]
    input_channels: int
    size: Sequence[int]
    crops_per_pair: int
    flip: bool

    def __len__(self) -> int:
        return len(self.pairs) * self.crops_per_pair

    def __getitem__(self, index: int) -> Sample:
        place = index // self.crops_per_pair
        images = torch.from_numpy(random_crop(self.pairs[place].array(IMAGES), self.size))
        if self.flip:
            axes = [1 + axis for axis, drawn in enumerate(torch.randint(2, (len(self.size),)).tolist()) if drawn]
            images = images.flip(axes)
        return _sample(images, self.input_channels, place)


def random_crop(images: NDArray[np.float32], size: Sequence[int]) -> NDArray[np.float32]:
    """Return a random crop (C, *size) of images (C, *spatial), 0 outside of them."""
    first: list[int] = []
    for side, wanted in zip(images.shape[1:], size, strict=True):
        drawn = int(torch.randint(abs(side - wanted) + 1, ()))
        first.append(drawn if side > wanted else -drawn)
    return read_crop(images, first, size)


def _sample(images: Tensor, input_channels: int, index: int) -> Sample:
    return {"input": images[:input_channels], "target": images[input_channels:], "index": index}
