"""The files of a public data set: checked, and downloaded where they are missing or damaged."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_warn

from src.datamodules.cache import exclusive, require_writable
from src.utils.errors import say
from src.utils.files import TEMPORARY_SUFFIX
from src.utils.reading import reason

SOCKET_TIMEOUT_S = 30.0  # a server that falls silent would otherwise hold a run, and the lock, for ever


class DataFileError(ValueError):
    """Files of a data set are missing or damaged, or could not be downloaded."""


class DataFiles(ABC):
    """The files of one data set in one folder, where torchvision would have them.

    Args:
        data_dir: the folder of all data sets.
        verify_checksums: hold the files against their md5 sums; if not, a file is whole when it can be read.
    """

    title: str
    subfolder: str
    names: tuple[str, ...]

    def __init__(self, data_dir: str | Path, verify_checksums: bool) -> None:
        self.data_dir = Path(data_dir)
        self.folder = self.data_dir / self.subfolder
        self.verify_checksums = verify_checksums

    @abstractmethod
    def checksums(self) -> dict[str, str]:
        """Return the md5 sums by the files' names."""

    @abstractmethod
    def source(self) -> str:
        """Return where the files come from."""

    @abstractmethod
    def fetch(self, names: Sequence[str], folder: Path) -> Path:
        """Download files into a folder, and return the folder where they lie then.

        Raises:
            OSError: if that fails.
        """

    @abstractmethod
    def parse(self, path: Path) -> Any:
        """Return what a file holds.

        Raises:
            Exception: if it is not as it should be, and whatever a parser raises for a damaged file.
        """

    @abstractmethod
    def read_split(self, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images (N, C, H, W) and labels (N,) of the split ``train`` or ``test``.

        Raises:
            DataFileError: if a file is missing or damaged.
        """

    def locate(self, name: str) -> Path:
        """Return the path of a file."""
        return self.folder / name

    def read(self, name: str) -> Any:
        """Return what a file holds.

        Raises:
            DataFileError: if it is missing or damaged.
        """
        try:
            return self.parse(self.locate(name))
        except Exception as error:
            raise self.error({name: reason(error)}) from error

    def prepare(self, download: bool) -> None:
        """Check the files and download those that are missing or damaged; one process at a time.

        Files that are whole are only read, so that their folder may be read-only.

        Raises:
            DataFileError: if files are missing or damaged, and ``download`` is false or fails.
        """
        damages = self._damages()
        if not damages:
            return
        if not download:
            raise self.error(damages)
        try:
            require_writable(self.folder)
        except ValueError as error:
            raise self.error(damages, str(error)) from error
        with exclusive(self.folder / "download.lock", f"downloads {self.title} to {self.folder}"):
            for leftover in self.folder.glob(f"*{TEMPORARY_SUFFIX}"):
                shutil.rmtree(leftover)  # of an interrupted process: whoever downloads holds the lock
            self._replace(self._damages())

    def error(self, damages: Mapping[str, str], failure: str = "") -> DataFileError:
        """Return the error that names the files, says what is wrong with each, and how to get them."""
        listing = "; ".join(f"{self.locate(name)}: {damage}" for name, damage in damages.items())
        remedy = (
            f"They could not be downloaded: {failure}. Copy" if failure else "Set datamodule.download=true, or copy"
        )
        return DataFileError(
            f"expected the files of {self.title}, got {listing}. {remedy} them to {self.folder} (they come from "
            f"{self.source()}), or set datamodule.data_dir=<folder that has {self.subfolder}>"
        )

    def _damages(self) -> dict[str, str]:
        """Return what is wrong with each file that is not whole."""
        checksums = self.checksums() if self.verify_checksums else {}
        damages = {name: self._find_damage(self.locate(name), checksums) for name in self.names}
        return {name: damage for name, damage in damages.items() if damage is not None}

    def _find_damage(self, path: Path, checksums: Mapping[str, str]) -> str | None:
        """Return what is wrong with a file, by its md5 sum if that is given, otherwise by its content."""
        try:
            if not path.is_file():
                return "missing"
            if path.name in checksums:
                return _checksum_damage(path, checksums[path.name])
            self.parse(path)
        except Exception as error:
            return reason(error)
        return None

    def _replace(self, damages: Mapping[str, str]) -> None:
        """Download files to a temporary folder, verify them there, and move them into place."""
        for name, damage in damages.items():
            if damage != "missing":
                rank_zero_warn(f"Downloading {self.locate(name)} again, which is damaged: {damage}")
        if not damages:
            return
        say(f"Downloading {self.title} to {self.folder}")
        checksums = self.checksums()
        with tempfile.TemporaryDirectory(dir=self.folder, suffix=TEMPORARY_SUFFIX) as temporary:
            try:
                fetched = self.fetch(list(damages), Path(temporary))
            except OSError as error:  # of the network, or of the disk
                raise self.error(damages, str(error)) from error
            found = {name: self._find_damage(fetched / name, checksums) for name in damages}
            wrong = [f"{name} of the download: {damage}" for name, damage in found.items() if damage is not None]
            if wrong:
                raise self.error(damages, "; ".join(wrong))
            for name in damages:
                os.replace(fetched / name, self.folder / name)


def download(urls: Sequence[str], folder: Path, name: str, md5: str) -> Path:
    """Download one file with torchvision, from the first of the addresses that has it, and return its path.

    Raises:
        ConnectionError: if none has it.
    """
    from torchvision.datasets import utils

    failures = []
    for url in urls:
        try:
            with _socket_timeout(SOCKET_TIMEOUT_S):
                utils.download_url(url, folder, name, md5)
        except (RuntimeError, OSError, HTTPException) as error:
            failures.append(f"{url}: {error}")
        else:
            return folder / name
    raise ConnectionError("; ".join(failures))


def _checksum_damage(path: Path, expected: str) -> str | None:
    from torchvision.datasets.utils import calculate_md5

    found = calculate_md5(path)
    return None if found == expected else f"expected md5 {expected}, got {found} ({path.stat().st_size} bytes)"


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
