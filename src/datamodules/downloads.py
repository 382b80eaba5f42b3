"""The files of a public data set: checked, and downloaded where they are missing or damaged."""

import os
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets import utils

from src.datamodules.cached_files import UnwritableFolderError, make_missing
from src.utils.errors import say
from src.utils.files import TEMPORARY_SUFFIX
from src.utils.reading import reason

SOCKET_TIMEOUT_S = 30.0  # otherwise a silent server would hold a run, and the lock, for ever
MISSING = "missing"


class DataFileError(ValueError):
    """Files of a data set are missing or damaged, or could not be downloaded."""


class DataFiles(ABC):
    """The files of one data set below ``data_dir``, where torchvision has them.

    With ``verify_checksums`` a file is whole if it has its md5 sum, otherwise if it can be parsed.
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
        """Download files to a folder, and return the folder that then holds them; raise OSError if that fails."""

    @abstractmethod
    def parse(self, path: Path) -> Any:
        """Return the content of a file; raise any exception if the file is damaged."""

    @abstractmethod
    def read_split(self, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images (N, C, H, W) and labels (N,) of ``train`` or ``test``; raise DataFileError for bad files."""

    def locate(self, name: str) -> Path:
        """Return the path of a file."""
        return self.folder / name

    def read(self, name: str) -> Any:
        """Return the content of a file; raise DataFileError if it is missing or damaged."""
        try:
            return self.parse(self.locate(name))
        except Exception as error:
            raise self.error(f"{self.locate(name)}: {reason(error)}") from error

    def prepare(self, download: bool) -> None:
        """Check the files, and download bad ones; raise DataFileError if ``download`` is false or fails."""
        unusable = self._find_unusable()
        if not unusable:
            return
        problem = "; ".join(damage or f"{self.locate(name)}: {MISSING}" for name, damage in unusable.items())
        if not download:
            raise self.error(problem)
        try:
            make_missing(self.folder, f"downloads {self.title} to {self.folder}", self._find_unusable, self._download)
        except (OSError, UnwritableFolderError) as error:
            raise self.error(problem, str(error)) from error

    def error(self, problem: str, failure: str = "") -> DataFileError:
        """Return an error that names the bad files, why a download failed if it did, and how to get the files."""
        tried = f"They could not be downloaded: {failure}. Copy" if failure else "Set datamodule.download=true, or copy"
        return DataFileError(
            f"expected the files of {self.title}, got {problem}. {tried} them to {self.folder} (they come from "
            f"{self.source()}), or set datamodule.data_dir=<folder that has {self.subfolder}>"
        )

    def _find_unusable(self) -> dict[str, str | None]:
        """Return the files that are missing (None) or damaged (the path and the damage)."""
        checksums = self.checksums() if self.verify_checksums else {}
        paths = {name: self.locate(name) for name in self.names}
        damages = {name: self._find_damage(path, checksums.get(path.name)) for name, path in paths.items()}
        return {n: None if d == MISSING else f"{paths[n]}: {d}" for n, d in damages.items() if d is not None}

    def _find_damage(self, path: Path, checksum: str | None) -> str | None:
        """Return what is wrong with a file, by its md5 sum if that is given, otherwise by its content."""
        try:
            if not path.is_file():
                return MISSING
            if checksum is None:
                self.parse(path)
            elif (found := utils.calculate_md5(path)) != checksum:
                return f"expected md5 {checksum}, got {found} ({path.stat().st_size} bytes)"
        except Exception as error:
            return reason(error)
        return None

    def _download(self, names: Sequence[str]) -> None:
        """Download files to a temporary folder, verify them there, and move them into place."""
        say(f"Downloading {self.title} to {self.folder}")
        checksums = self.checksums()
        with tempfile.TemporaryDirectory(dir=self.folder, suffix=TEMPORARY_SUFFIX) as temporary:
            fetched = self.fetch(names, Path(temporary))
            damages = {name: self._find_damage(fetched / name, checksums[name]) for name in names}
            wrong = [f"{name} of the download: {damage}" for name, damage in damages.items() if damage is not None]
            if wrong:
                raise OSError("; ".join(wrong))
            for name in names:
                os.replace(fetched / name, self.folder / name)


def download(urls: Sequence[str], folder: Path, name: str, md5: str) -> Path:
    """Download a file from the first address that has it, and return its path; raise OSError if none has."""
    failures = []
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_TIMEOUT_S)  # torchvision sets none
    try:
        for url in urls:
            try:
                utils.download_url(url, folder, name, md5)
                return folder / name
            except (RuntimeError, OSError, HTTPException) as error:
                failures.append(f"{url}: {error}")
    finally:
        socket.setdefaulttimeout(before)
    raise ConnectionError("; ".join(failures))
