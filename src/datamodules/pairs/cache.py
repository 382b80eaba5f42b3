"""Checked and scaled pairs as files that a crop can be read from."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.datamodules.cached_files import folder_name, make_missing, run_parallel
from src.datamodules.pairs.images import Image, ImageKind, Scaling, geometry_errors
from src.datamodules.pairs.pairing import Pair, shown
from src.datamodules.problems import Problem
from src.utils.files import atomic_write, plain_name
from src.utils.reading import FileError, reading
from src.utils.seal import SEAL_LENGTH, check_seal, has_seal, seal

# Changes whenever the same files would give other arrays.
PREPROCESSING_VERSION = 1


@dataclass(frozen=True)
class Preprocessing:
    """What is done with the files of a pair: reading inputs and targets, and scaling both."""

    input: ImageKind
    target: ImageKind
    scaling: Scaling

    def apply(self, pair: Pair) -> NDArray[np.float32] | list[Problem]:
        """Return input and target, scaled, as (C_in + C_target, *spatial), or all that is wrong with them."""
        problems: list[Problem] = []
        images: list[Image] = []
        for kind, path in ((self.input, pair.input), (self.target, pair.target)):
            try:
                images.append(kind.read(path))
            except ValueError as error:  # a FileError is one too
                problems.append(Problem(pair.name, shown(path), str(error)))
        if problems:
            return problems
        image, target = images
        errors = [(shown(pair.target), message) for message in geometry_errors(image, target, shown(pair.input))]
        try:
            windows = self.scaling.windows(image.values)
        except ValueError as error:
            errors.append((shown(pair.input), str(error)))
        if errors:
            return [Problem(pair.name, *error) for error in errors]
        return np.concatenate([window.scaled(one.values) for window, one in zip(windows, images, strict=True)])


class CachedPair(NamedTuple):
    """A pair that has been preprocessed, and the spatial shape of its images."""

    pair: Pair
    array: Path
    spatial: tuple[int, ...]

    def images(self) -> NDArray[np.float32]:
        """Return input and target, (C_in + C_target, *spatial), mapped from the disk; FileError if it is damaged."""
        with reading(self.array, "a preprocessed pair (remove it, and the next start makes it again)"):
            stat = self.array.stat()
            _check_once(self.array, stat.st_size, stat.st_mtime_ns)
            return np.load(self.array, mmap_mode="r")


@functools.cache
def _check_once(path: Path, size: int, mtime_ns: int) -> None:
    """Raise ValueError for an array that is not as it was written; a process asks once for each state of a file."""
    if not check_seal(path):
        raise ValueError("no digest")


class PairCache:
    """The preprocessed pairs of one data set.

    A pair is one uncompressed float32 array and a record, which is written last and has sizes and times of the source
    files: when these change, the pair is made again. A bad pair has a record of its problems and no array. Each file
    ends with its digest.
    """

    def __init__(self, cache_dir: Path, source: Path, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        parameters = {
            "preprocessing_version": PREPROCESSING_VERSION,
            "source": str(source.resolve()),
            **asdict(preprocessing),
        }
        self.folder = cache_dir / folder_name(source.resolve().name, parameters)

    def prepare(self, pairs: Sequence[Pair], num_workers: int) -> tuple[list[CachedPair], list[Problem]]:
        """Preprocess missing, outdated and damaged pairs; return usable pairs, and the problems of the others.

        ``num_workers`` processes do that, or with 0 this one. ValueError if the folder cannot be written.
        """
        preprocess = functools.partial(_preprocess, preprocessing=self.preprocessing, folder=self.folder)
        make_missing(
            self.folder,
            f"preprocesses images in {self.folder}",
            lambda: self._find_unusable(pairs),
            lambda missing: run_parallel(preprocess, missing, num_workers, "Checking and preprocessing images"),
        )
        loaded = [self.load(pair) for pair in pairs]
        assert None not in loaded, f"images in {self.folder} changed while they were preprocessed"
        usable = [found for found in loaded if isinstance(found, CachedPair)]
        return usable, [problem for found in loaded if isinstance(found, list) for problem in found]

    def _find_unusable(self, pairs: Sequence[Pair]) -> dict[Pair, str | None]:
        unusable: dict[Pair, str | None] = {}
        for pair in pairs:
            try:
                if self.load(pair) is None:
                    unusable[pair] = None
            except FileError as error:
                unusable[pair] = str(error)
        return unusable

    def load(self, pair: Pair) -> CachedPair | list[Problem] | None:
        """Return a pair or its problems, None if it has to be made; raise FileError for a damaged file."""
        path, array = _record(self.folder, pair), _array(self.folder, pair)
        if not path.exists():
            return None
        with reading(path, "the record of a preprocessed pair"):
            sealed, content = check_seal(path), path.read_bytes()
            record = json.loads(content[:-SEAL_LENGTH] if sealed else content)
            if not sealed or record["sources"] != _fingerprint(pair):
                return None
            if record["problems"]:
                return [Problem(pair.name, *problem) for problem in record["problems"]]
            shape = tuple(record["shape"])
        with reading(array, f"an array {shape} with its digest"):
            found = np.load(array, mmap_mode="r").shape
            if found != shape or not has_seal(array):
                raise ValueError(f"shape {found}, {'a' if has_seal(array) else 'no'} digest")
        return CachedPair(pair, array, shape[1:])


def _preprocess(pair: Pair, preprocessing: Preprocessing, folder: Path) -> None:
    """Check one pair and write its array, or what is wrong with it, and then its record."""
    record: dict[str, Any] = {"sources": _fingerprint(pair), "problems": []}
    result = preprocessing.apply(pair)
    if isinstance(result, list):
        record["problems"] = [[problem.file, problem.message] for problem in result]
    else:
        record["shape"] = result.shape
        with atomic_write(_array(folder, pair)) as file:
            np.save(file, result)
            seal(file)
    with atomic_write(_record(folder, pair)) as file:
        file.write(json.dumps(record).encode())
        seal(file)


def _fingerprint(pair: Pair) -> dict[str, list[int]]:
    stats = {str(path): path.stat() for path in (pair.input, pair.target)}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _record(folder: Path, pair: Pair) -> Path:
    return folder / f"{plain_name(pair.name)}.json"


def _array(folder: Path, pair: Pair) -> Path:
    return folder / f"{plain_name(pair.name)}.npy"
