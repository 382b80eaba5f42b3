"""One scan: its files, and what is in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.datamodules.case_cache import CachedCase, CaseCache
from src.datamodules.problems import Problem

# The arrays of a preprocessed scan: (C, X, Y, Z) and (X, Y, Z), the latter where there is a truth.
IMAGE, CLASSES = "image", "classes"


class Case(NamedTuple):
    """The files of one scan: its images in the order of the channels, and the truth where there is one."""

    name: str
    images: tuple[Path, ...]
    truth: Path | None

    @property
    def stem(self) -> str:
        """Another one with the truth than without."""
        return self.name if self.truth is not None else f"{self.name}.unlabelled"

    @property
    def files(self) -> tuple[Path, ...]:
        """The images and, if there is one, the truth."""
        return self.images if self.truth is None else (*self.images, self.truth)


class CaseVolumes(NamedTuple):
    """What the files of a case hold.

    Attributes:
        images: the channels, (C, X, Y, Z), as in the files.
        classes: in memory, (X, Y, Z); None without a truth.
        spacing: the voxels' sides in mm.
        oddities: what is unusual about the files, but no reason to refuse them.
    """

    images: NDArray[np.float32]
    classes: NDArray[np.uint8] | None
    spacing: tuple[float, ...]
    oddities: Sequence[Problem] = ()


CachedScan = CachedCase[Case]
ScanCache = CaseCache[Case]
