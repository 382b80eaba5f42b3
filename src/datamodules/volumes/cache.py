"""Preprocessed cases as files that a crop can be read from."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.datamodules.cached_files import make_missing, run_parallel
from src.datamodules.volumes.cases import Case, Problem
from src.utils.files import atomic_write
from src.utils.reading import FileError, reading
from src.utils.seal import SEAL_LENGTH, check_seal, has_seal, seal

RECORD = "json"
IMAGE, CLASSES = "image", "classes"


class Preprocessed(NamedTuple):
    """Arrays of a case by name, and facts about it that JSON can hold."""

    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]


Preprocess = Callable[[Case], Preprocessed | list[Problem]]


class CachedCase(NamedTuple):
    """A case that has been preprocessed: its arrays on the disk, and the facts about it.

    The arrays "image" (C, X, Y, Z) and "classes" (X, Y, Z) are of a box of the scan, which the facts "shape" (of the
    scan) and "box" (first and last-plus-one voxel along each axis) describe.
    """

    case: Case
    stem: Path
    facts: dict[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the scan."""
        return tuple(self.facts["shape"])

    @property
    def part(self) -> tuple[slice, ...]:
        """The box as an index into the scan."""
        return tuple(slice(first, end) for first, end in self.facts["box"])

    def array(self, name: str) -> NDArray[Any]:
        """Return an array, mapped from the disk; raise FileError if the file is damaged."""
        path = _array_file(self.stem, name)
        with reading(path, "a preprocessed scan (remove it, and the next start makes it again)"):
            stat = path.stat()
            _check_once(path, stat.st_size, stat.st_mtime_ns)
            return np.load(path, mmap_mode="r")

    def image(self) -> NDArray[np.float32]:
        """Return the channels, (C, X, Y, Z), mapped from the disk; raise FileError if the file is damaged."""
        return self.array(IMAGE)

    def classes(self) -> NDArray[np.uint8]:
        """Return the classes, (X, Y, Z), mapped from the disk; raise FileError if the file is damaged."""
        return self.array(CLASSES)


class CaseCache:
    """The preprocessed cases of one folder of scans.

    One case is some uncompressed arrays and a record, which is written last and has the sizes and times of the source
    files: when these change, the case is made again. A bad case has a record of its problems and no arrays. Each file
    ends with its digest: the record is compared with it at the start, an array when a process first reads it. Files
    without a digest, from an earlier version, are made again.

    Args:
        folder: of the files; another one whenever ``preprocess`` would give other arrays.
        preprocess: returns the arrays of a case, or all its problems; worker processes get a copy.
    """

    def __init__(self, folder: Path, preprocess: Preprocess) -> None:
        self.folder = folder
        self.preprocess = preprocess

    def prepare(self, cases: Sequence[Case], num_workers: int) -> tuple[list[CachedCase], list[Problem]]:
        """Preprocess missing, outdated and damaged cases; return usable cases, and the problems of the others.

        ``num_workers`` processes do that, or with 0 this one. ValueError if the folder cannot be written.
        """
        make = functools.partial(_make, preprocess=self.preprocess, folder=self.folder)
        make_missing(
            self.folder,
            f"preprocesses scans in {self.folder}",
            lambda: self._find_unusable(cases),
            lambda missing: run_parallel(make, missing, num_workers, "Checking and preprocessing scans"),
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

    def load(self, case: Case) -> CachedCase | list[Problem] | None:
        """Return a case or its problems, None if it has to be made; raise FileError for a damaged file."""
        stem = _stem(self.folder, case)
        path = _file(stem, RECORD)
        if not path.exists():
            return None
        with reading(path, "the record of a preprocessed case"):
            sealed, content = check_seal(path), path.read_bytes()
            record = json.loads(content[:-SEAL_LENGTH] if sealed else content)
            if not sealed or record["sources"] != _fingerprint(case):
                return None
            if record["problems"]:
                return [Problem(case.name, *problem) for problem in record["problems"]]
            for name, shape in record["arrays"].items():
                _check_array(_array_file(stem, name), tuple(shape))
            return CachedCase(case, stem, record["facts"])


def _make(case: Case, preprocess: Preprocess, folder: Path) -> None:
    """Write the arrays of one case, or what is wrong with it, and then its record."""
    stem = _stem(folder, case)
    record: dict[str, Any] = {"sources": _fingerprint(case), "problems": []}
    result = preprocess(case)
    if isinstance(result, Preprocessed):
        for name, array in result.arrays.items():
            with atomic_write(_array_file(stem, name)) as file:
                np.save(file, array)
                seal(file)
        record |= {"arrays": {name: array.shape for name, array in result.arrays.items()}, "facts": result.facts}
    else:
        record["problems"] = [[problem.file, problem.message] for problem in result]
    with atomic_write(_file(stem, RECORD)) as file:
        file.write(json.dumps(record).encode())
        seal(file)


def _check_array(path: Path, expected: tuple[int, ...]) -> None:
    """Raise FileError for an array that is missing, cut off or of another shape; its values are not read."""
    with reading(path, f"an array {expected} with its digest"):
        shape = np.load(path, mmap_mode="r").shape
        if shape != expected or not has_seal(path):
            raise ValueError(f"shape {shape}, {'a' if has_seal(path) else 'no'} digest")


@functools.cache
def _check_once(path: Path, size: int, mtime_ns: int) -> None:
    """Raise ValueError for an array that is not as it was written; a process asks once for each state of a file."""
    if not check_seal(path):
        raise ValueError("no digest")


def _fingerprint(case: Case) -> dict[str, list[int]]:
    # With the folder's name, because files in folders of their own may all have the same name.
    stats = {f"{path.parent.name}/{path.name}": path.stat() for path in case.files}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _stem(folder: Path, case: Case) -> Path:
    return folder / (case.name if case.truth is not None else f"{case.name}.unlabelled")


def _array_file(stem: Path, name: str) -> Path:
    return _file(stem, f"{name}.npy")


def _file(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}.{ending}")
