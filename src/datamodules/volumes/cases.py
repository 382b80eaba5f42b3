"""One scan's files, and what is wrong with them."""

from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """The files of one scan: its images in the order of the channels, and the truth where there is one."""

    name: str
    images: tuple[Path, ...]
    truth: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """The images and, if there is one, the truth."""
        return self.images if self.truth is None else (*self.images, self.truth)


class Problem(NamedTuple):
    """What is wrong with one file of one case."""

    case: str
    file: str
    message: str
