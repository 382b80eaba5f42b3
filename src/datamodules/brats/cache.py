"""Preprocessed cases as files that a crop can be read from: checked, cropped to the brain, z-scored."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.transforms.intensity.array import NormalizeIntensity
from monai.transforms.utils import generate_spatial_bounding_box
from numpy.typing import NDArray

from src.datamodules.brats.cases import Case, Problem
from src.datamodules.brats.reading import CaseVolumes, read_case
from src.datamodules.brats.releases import BACKGROUND, MODALITIES, Release, find_release
from src.datamodules.cached_files import folder_name, make_missing, run_parallel
from src.utils.files import atomic_write
from src.utils.reading import FileError, reading
from src.utils.seal import SEAL_LENGTH, check_seal, has_seal, seal

# Changes whenever the same scans would give other arrays.
PREPROCESSING_VERSION = 2
# Endings of a case's files.
RECORD, IMAGE, CLASSES = "json", "image.npy", "classes.npy"


class CachedCase(NamedTuple):
    """A case that has been preprocessed: arrays of the brain's box, and where that box lies in the scan."""

    case: Case
    stem: Path
    shape: tuple[int, ...]  # of the scan
    box: tuple[tuple[int, int], ...]  # first and last-plus-one voxel along each axis
    oddities: tuple[Problem, ...] = ()  # what is unusual about the scans

    @property
    def part(self) -> tuple[slice, ...]:
        """The box as an index into the scan."""
        return tuple(slice(first, end) for first, end in self.box)

    def image(self) -> NDArray[np.float32]:
        """Return the modalities, (4, X, Y, Z), mapped from the disk; raise FileError if the file is damaged."""
        return _mapped(_file(self.stem, IMAGE))

    def classes(self) -> NDArray[np.uint8]:
        """Return the canonical classes, (X, Y, Z), mapped from the disk; raise FileError if the file is damaged."""
        return _mapped(_file(self.stem, CLASSES))


class BratsCache:
    """The preprocessed cases of one folder of scans.

    One case is two uncompressed arrays, float32 and uint8, and a record, which is written last and has the sizes and
    times of the source files: when these change, the case is made again. A bad case has a record of its problems and
    no arrays. Each file ends with its digest: the record is compared with it at the start, an array when a process
    first reads it. Files without a digest, from an earlier version, are made again.
    """

    def __init__(self, cache_dir: Path, data_dir: Path, release: Release) -> None:
        self.release = release
        parameters = {
            "preprocessing_version": PREPROCESSING_VERSION,
            "data_dir": str(data_dir.resolve()),
            "release": release.name,
            "label_values": dict(release.label_values),
            "modalities": MODALITIES,
        }
        self.folder = cache_dir / folder_name(f"{data_dir.resolve().name}-{release.name}", parameters)

    def prepare(self, cases: Sequence[Case], num_workers: int) -> tuple[list[CachedCase], list[Problem]]:
        """Preprocess missing, outdated and damaged cases; return usable cases, and the problems of the others.

        ``num_workers`` processes do that, or with 0 this one. ValueError if the folder cannot be written.
        """
        preprocess = functools.partial(_preprocess, release=self.release.name, folder=self.folder)
        make_missing(
            self.folder,
            f"preprocesses scans in {self.folder}",
            lambda: self._find_unusable(cases),
            lambda missing: run_parallel(preprocess, missing, num_workers, "Checking and preprocessing scans"),
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
            problems, oddities = ([Problem(case.name, *p) for p in record[key]] for key in ("problems", "oddities"))
            if problems:
                return problems
            box = tuple((first, end) for first, end in record["box"])
            _check_arrays(stem, tuple(end - first for first, end in box), case.truth is not None)
            return CachedCase(case, stem, tuple(record["shape"]), box, tuple(oddities))


def _preprocess(case: Case, release: str, folder: Path) -> None:
    """Check one case and write its arrays, or what is wrong with it, and then its record."""
    stem = _stem(folder, case)
    record: dict[str, Any] = {"sources": _fingerprint(case), "problems": [], "oddities": []}
    result = read_case(case, find_release(release))
    if isinstance(result, CaseVolumes):
        record |= {"shape": result.images.shape[1:], "box": _write_arrays(stem, result)}
        record["oddities"] = [[oddity.file, oddity.message] for oddity in result.oddities]
    else:
        record["problems"] = [[problem.file, problem.message] for problem in result]
    with atomic_write(_file(stem, RECORD)) as file:
        file.write(json.dumps(record).encode())
        seal(file)


def _write_arrays(stem: Path, volumes: CaseVolumes) -> list[tuple[int, int]]:
    """Write the part of a case that has the brain and the truth, and return its box."""
    used = np.zeros(volumes.images.shape[1:], bool) if volumes.classes is None else volumes.classes != BACKGROUND
    for image in volumes.images:
        used |= image != 0
    box = [(int(first), int(end)) for first, end in zip(*generate_spatial_bounding_box(used[None]), strict=True)]
    part = tuple(slice(first, end) for first, end in box)
    brains = volumes.images[(slice(None), *part)].copy()
    normalise = NormalizeIntensity(nonzero=True)
    for brain in brains:  # one by one, to save memory
        brain[...] = normalise(brain)
    arrays: dict[Path, NDArray[Any]] = {_file(stem, IMAGE): brains}
    if volumes.classes is not None:
        arrays[_file(stem, CLASSES)] = volumes.classes[part]
    for path, array in arrays.items():
        with atomic_write(path) as file:
            np.save(file, array)
            seal(file)
    return box


def _check_arrays(stem: Path, spatial: tuple[int, ...], labelled: bool) -> None:
    """Raise FileError for an array that is missing, cut off or of another shape; its values are not read."""
    shapes = {_file(stem, IMAGE): (len(MODALITIES), *spatial)} | ({_file(stem, CLASSES): spatial} if labelled else {})
    for path, expected in shapes.items():
        with reading(path, f"an array {expected} with its digest"):
            shape = np.load(path, mmap_mode="r").shape
            if shape != expected or not has_seal(path):
                raise ValueError(f"shape {shape}, {'a' if has_seal(path) else 'no'} digest")


def _mapped(path: Path) -> NDArray[Any]:
    """Return an array, mapped from the disk, after its digest was checked."""
    with reading(path, "a preprocessed scan (remove it, and the next start makes it again)"):
        stat = path.stat()
        _check_once(path, stat.st_size, stat.st_mtime_ns)
        return np.load(path, mmap_mode="r")


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


def _file(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}.{ending}")
