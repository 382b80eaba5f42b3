"""Cases that were checked and preprocessed once, as arrays on the disk that a part can be read from."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from numpy.typing import NDArray

from src.datamodules.cached_arrays import (
    check_array,
    fingerprint,
    mapped_array,
    read_record,
    write_array,
    write_record,
)
from src.datamodules.cached_files import make_missing, run_parallel
from src.datamodules.problems import Problem
from src.utils.reading import FileError, reading

RECORD = "the record of a preprocessed case"


class Source(Protocol):
    """The files of one case."""

    @property
    def name(self) -> str:
        """What messages call the case."""

    @property
    def stem(self) -> str:
        """What the names of its preprocessed files begin with; another one for every case of a cache."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files."""


Case = TypeVar("Case", bound=Source)


class Preprocessed(NamedTuple):
    """Arrays of a case by name, and facts about it that JSON can hold."""

    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]


class CachedCase(Generic[Case]):
    """A case that has been preprocessed: its arrays on the disk, and the facts about it.

    Attributes:
        case: its files.
        folder: of the arrays.
        shapes: of the arrays, by name.
        facts: about the case.
    """

    def __init__(self, case: Case, folder: Path, shapes: Mapping[str, tuple[int, ...]], facts: dict[str, Any]) -> None:
        self.case = case
        self.shapes = shapes
        self.facts = facts
        self.folder = folder

    def array(self, name: str) -> NDArray[Any]:
        """Return an array, mapped from the disk; raise FileError if the file is damaged."""
        return mapped_array(_array_file(self.folder, self.case, name), "a preprocessed case")

    def check(self) -> None:
        """Raise FileError if an array is missing, cut off or of another shape; the values are not read."""
        for name, shape in self.shapes.items():
            check_array(_array_file(self.folder, self.case, name), shape)


class CaseCache(Generic[Case]):
    """The preprocessed cases of one data set.

    One case is some uncompressed arrays and a record, which is written last and has the sizes and times of the source
    files: when these change, the case is made again. A bad case has a record of its problems and no arrays. Each file
    ends with its digest: the record is compared with it at the start, an array when a process first reads it. Files
    without a digest, from an earlier version, are made again.

    Args:
        folder: of the files; another one whenever ``preprocess`` would give other arrays.
        preprocess: returns the arrays of a case, or all its problems; worker processes get a copy.
        activity: what the progress bar says.
    """

    def __init__(
        self,
        folder: Path,
        preprocess: Callable[[Case], Preprocessed | list[Problem]],
        activity: str = "Checking and preprocessing scans",
    ) -> None:
        self.folder = folder
        self.preprocess = preprocess
        self.activity = activity

    def prepare(self, cases: Sequence[Case], num_workers: int) -> tuple[list[CachedCase[Case]], list[Problem]]:
        """Preprocess missing, outdated and damaged cases; return usable cases, and the problems of the others.

        ``num_workers`` processes do that, or with 0 this one. ValueError if the folder cannot be written.
        """
        make = functools.partial(_make, preprocess=self.preprocess, folder=self.folder)
        make_missing(
            self.folder,
            f"preprocesses files in {self.folder}",
            lambda: self._find_unusable(cases),
            lambda missing: run_parallel(make, missing, num_workers, self.activity),
        )
        loaded = [self.load(case) for case in cases]
        assert None not in loaded, f"cases in {self.folder} changed while they were preprocessed"
        usable = [found for found in loaded if isinstance(found, CachedCase)]
        return usable, [problem for found in loaded if isinstance(found, list) for problem in found]

    def _find_unusable(self, cases: Sequence[Case]) -> dict[Case, str | None]:
        unusable: dict[Case, str | None] = {}
        for case in cases:
            try:
                if self.load(case) is None:
                    unusable[case] = None
            except FileError as error:
                unusable[case] = str(error)
        return unusable

    def has(self, case: Case) -> bool:
        """Return whether a case is there and can be used."""
        try:
            return isinstance(self.load(case), CachedCase)
        except FileError:
            return False

    def load(self, case: Case) -> CachedCase[Case] | list[Problem] | None:
        """Return a case or its problems, None if it has to be made; raise FileError for a damaged file."""
        path = _record_file(self.folder, case)
        record = read_record(path, RECORD)
        if record is None:
            return None
        with reading(path, RECORD):
            if record["sources"] != fingerprint(case.files):
                return None
            if record["problems"]:
                return [Problem(case.name, *problem) for problem in record["problems"]]
            shapes = {name: tuple(shape) for name, shape in record["arrays"].items()}
            cached = CachedCase(case, self.folder, shapes, record["facts"])
        cached.check()
        return cached


def _make(case: Case, preprocess: Callable[[Case], Preprocessed | list[Problem]], folder: Path) -> None:
    """Write the arrays of one case, or what is wrong with it, and then its record."""
    record: dict[str, Any] = {"sources": fingerprint(case.files), "problems": []}
    result = preprocess(case)
    if isinstance(result, Preprocessed):
        for name, array in result.arrays.items():
            write_array(_array_file(folder, case, name), array)
        record |= {"arrays": {name: array.shape for name, array in result.arrays.items()}, "facts": result.facts}
    else:
        record["problems"] = [[problem.file, problem.message] for problem in result]
    write_record(_record_file(folder, case), record)


def _record_file(folder: Path, case: Source) -> Path:
    return folder / f"{case.stem}.json"


def _array_file(folder: Path, case: Source, name: str) -> Path:
    return folder / f"{case.stem}.{name}.npy"
