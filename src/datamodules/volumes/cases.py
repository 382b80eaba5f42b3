"""One scan's files."""

from pathlib import Path
from typing import NamedTuple

from src.datamodules.case_cache import CachedCase, CaseCache

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


CachedScan = CachedCase[Case]
ScanCache = CaseCache[Case]
