"""Preprocessed cases as samples: random crops for training, whole volumes for evaluation and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms.compose import Compose
from monai.transforms.intensity.array import RandGaussianNoise, RandScaleIntensity, RandShiftIntensity
from monai.transforms.spatial.dictionary import RandFlipd
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from src.datamodules.crops import read_crop
from src.datamodules.volumes.cases import CLASSES, IMAGE, CachedScan
from src.utils.errors import check_range

Sample = dict[str, Any]


@dataclass(eq=False)
class WholeVolumes(Dataset[Sample]):
    """Whole cases: "image" (C, X, Y, Z), "index", and "label" (X, Y, Z) if ``labelled``."""

    cases: Sequence[CachedScan]
    labelled: bool

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Sample:
        case = self.cases[index]
        sample: Sample = {"image": torch.from_numpy(np.array(case.array(IMAGE))), "index": index}
        if self.labelled:
            sample["label"] = torch.from_numpy(case.array(CLASSES).astype(np.int64))
        return sample


@dataclass(frozen=True)
class CropOptions:
    """How training crops are drawn.

    Args:
        size: voxels along each axis.
        foreground_probability: how often a crop is centred at a voxel that is not background; see `draw_crop`.
        augmentation: what changes the crops at random; None for nothing.

    Raises:
        ValueError: the size is not three positive numbers.
    """

    size: tuple[int, ...]
    foreground_probability: float
    augmentation: Augmentation | None

    def __post_init__(self) -> None:
        if len(self.size) != 3 or min(self.size) < 1:
            raise ValueError(f"expected size as three positive numbers of voxels, got {list(self.size)}")


@dataclass(eq=False)
class RandomCrops(Dataset[Sample]):
    """One random crop per labelled case: "image" (C, *size), "label" (*size), "index"; 0 outside the volume.

    All draws are from torch's global generator; see `src.datamodules.loaders.Seeded` and `draw_crop`.
    """

    cases: Sequence[CachedScan]
    options: CropOptions

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Sample:
        case = self.cases[index]
        classes = case.array(CLASSES)
        size, augmentation = self.options.size, self.options.augmentation
        first = draw_crop(classes, size, self.options.foreground_probability)
        image = torch.from_numpy(read_crop(case.array(IMAGE), first, size))
        label = torch.from_numpy(read_crop(classes, first, size)).long()
        if augmentation is not None:
            image, label = augmentation(image, label)
        return {"image": image, "label": label, "index": index}


def draw_crop(classes: NDArray[np.uint8], size: Sequence[int], foreground_probability: float) -> list[int]:
    """Draw the first voxel of a crop; it is negative along axes where the crop begins outside the volume.

    Along each axis the crop lies within the volume or, where it is larger, the volume within the crop. With
    ``foreground_probability`` the crop is centred, as far as that allows, at a voxel of one of the case's classes, all
    equally likely but the background, which never is; otherwise all places are equally likely.
    """
    low = [min(0, n - s) for n, s in zip(classes.shape, size, strict=True)]
    high = [max(0, n - s) for n, s in zip(classes.shape, size, strict=True)]
    if torch.rand(()) < foreground_probability:
        present = np.flatnonzero(np.bincount(classes.ravel())[1:]) + 1
        if len(present):
            voxels = np.flatnonzero(classes == present[_draw_below(len(present))])
            centre = np.unravel_index(voxels[_draw_below(len(voxels))], classes.shape)
            return np.clip([c - s // 2 for c, s in zip(centre, size, strict=True)], low, high).tolist()
    return [a + _draw_below(b - a + 1) for a, b in zip(low, high, strict=True)]


class Augmentation:
    """Flips along each axis with probability 1/2, then x ← x (1 + s) + t + noise per modality, where x is not 0.

    Args:
        intensity_scale, intensity_shift: s and t are uniform within ± these.
        noise_std: the noise is normal with a standard deviation that is uniform between 0 and this.

    Raises:
        ValueError: an argument is negative.
    """

    def __init__(self, intensity_scale: float, intensity_shift: float, noise_std: float) -> None:
        check_range(0, intensity_scale=intensity_scale, intensity_shift=intensity_shift, noise_std=noise_std)
        self.flips = Compose([RandFlipd(("image", "label"), prob=0.5, spatial_axis=axis) for axis in range(3)])
        self.intensities = Compose(
            [
                RandScaleIntensity(intensity_scale, prob=1.0, channel_wise=True),
                RandShiftIntensity(intensity_shift, prob=1.0, channel_wise=True),
                *([RandGaussianNoise(prob=1.0, std=noise_std)] if noise_std > 0 else []),
            ]
        )

    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return an image (C, *size) and its label (*size), changed at random."""
        # MONAI's transforms have their own generators, which are equal in all workers and not in checkpoints.
        for transform in (self.flips, self.intensities):
            transform.set_random_state(seed=_draw_below(2**31))
        flipped = self.flips({"image": image, "label": label[None]})
        image, label = flipped["image"].as_tensor(), flipped["label"].as_tensor()[0]
        return torch.where(image != 0, self.intensities(image.clone()).as_tensor(), 0), label


def _draw_below(count: int) -> int:
    return int(torch.randint(count, ()))
