"""Preprocessed cases as files that a crop can be read from: checked, cropped to the brain, z-scored."""

from __future__ import annotations

import functools
import hashlib
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
from src.datamodules.cache import exclusive, require_writable, run_parallel
from src.utils.files import TEMPORARY_SUFFIX, atomic_write
from src.utils.reading import FileError, reading
from src.utils.seal import SEAL_LENGTH, check_seal, has_seal, seal

# Changes whenever the same scans would give other arrays.
PREPROCESSING_VERSION = 1


class CachedCase(NamedTuple):
    """A case that has been preprocessed: arrays of the brain's box, and where that box lies in the scan."""

    case: Case
    stem: Path
    shape: tuple[int, ...]  # of the scan
    box: tuple[tuple[int, int], ...]  # first and last-plus-one voxel along each axis

    def image(self) -> NDArray[np.float32]:
        """Return the modalities, (4, X, Y, Z), mapped from the disk; raise FileError if the file is damaged."""
        return _mapped(_image_path(self.stem))

    def classes(self) -> NDArray[np.uint8]:
        """Return the canonical classes, (X, Y, Z), mapped from the disk; raise FileError if the file is damaged."""
        return _mapped(_classes_path(self.stem))


class _PreprocessingTask(NamedTuple):
    case: Case
    release: str
    stem: Path


class BratsCache:
    """The preprocessed cases of one folder of scans.

    One case is two uncompressed arrays, float32 and uint8, and a record, which is written last and says which files
    it was made of: a case whose files have other sizes or times is made again. A case that is not as it should be
    has a record of its problems instead of arrays. Each file ends with its digest: the record is held against it at the
    start, an array when a process first reads it. Files of a version before the digests are made again.

    Args:
        cache_dir: where the folder of this cache goes.
        data_dir: the scans.
        release: of the scans.
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
        digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
        self.folder = cache_dir / f"{data_dir.resolve().name}-{release.name}-{digest[:12]}"

    def prepare(self, cases: Sequence[Case], num_workers: int) -> tuple[list[CachedCase], list[Problem]]:
        """Preprocess what is not there yet; one process at a time, the others wait and find it.

        Args:
            cases: which.
            num_workers: processes; 0 for none but this.

        Returns:
            The cases that can be used, and the problems of the others.

        Raises:
            ValueError: cases are missing, and the folder cannot be written.
        """
        if any(self._load(case) is None for case in cases):
            require_writable(self.folder)
            with exclusive(self.folder / "preprocessing.lock", f"preprocesses scans in {self.folder}"):
                self._preprocess_missing(cases, num_workers)
        usable: list[CachedCase] = []
        problems: list[Problem] = []
        for case in cases:
            loaded = self._load(case)
            assert loaded is not None, f"{case.name} changed while it was preprocessed"
            if isinstance(loaded, CachedCase):
                usable.append(loaded)
            else:
                problems += loaded
        return usable, problems

    def has(self, case: Case) -> bool:
        """Return whether a case is there and can be used."""
        return isinstance(self._load(case), CachedCase)

    def _preprocess_missing(self, cases: Sequence[Case], num_workers: int) -> None:
        for leftover in self.folder.glob(f"*{TEMPORARY_SUFFIX}"):
            leftover.unlink()  # of an interrupted process: whoever writes holds the lock
        missing = [case for case in cases if self._load(case) is None]
        tasks = [_PreprocessingTask(case, self.release.name, self._stem(case)) for case in missing]
        if tasks:
            run_parallel(_preprocess, tasks, num_workers, "Checking and preprocessing scans")

    def _stem(self, case: Case) -> Path:
        return self.folder / (case.name if case.truth is not None else f"{case.name}.unlabelled")

    def _load(self, case: Case) -> CachedCase | list[Problem] | None:
        """Return a case or its problems, None where it has to be made (again)."""
        stem = self._stem(case)
        if not _record_path(stem).exists():
            return None
        try:
            with reading(_record_path(stem), "the record of a preprocessed case"):
                record = _read_record(_record_path(stem))
                if record is None or record["sources"] != _fingerprint(case):
                    return None
                if record["problems"]:
                    return [Problem(case.name, *problem) for problem in record["problems"]]
                box = tuple((first, end) for first, end in record["box"])
                _check_arrays(stem, tuple(end - first for first, end in box), case.truth is not None)
                return CachedCase(case, stem, tuple(record["shape"]), box)
        except FileError as error:
            # Here, because the processes of `run_parallel` import this file and never warn.
            from pytorch_lightning.utilities import rank_zero_warn

            rank_zero_warn(f"Preprocessing {case.name} again: {error}")
            return None


def _preprocess(task: _PreprocessingTask) -> None:
    """Check one case and write its arrays, or what is wrong with it, and then its record."""
    sources = _fingerprint(task.case)
    result = read_case(task.case, find_release(task.release))
    record: dict[str, Any] = {"sources": sources, "problems": []}
    if isinstance(result, CaseVolumes):
        record |= {"shape": result.images.shape[1:], "box": _write_arrays(task.stem, result)}
    else:
        record["problems"] = [[problem.file, problem.message] for problem in result]
    with atomic_write(_record_path(task.stem)) as file:
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
    for brain in brains:  # one by one, for the memory
        brain[...] = normalise(brain)
    with atomic_write(_image_path(stem)) as file:
        np.save(file, brains)
        seal(file)
    if volumes.classes is not None:
        with atomic_write(_classes_path(stem)) as file:
            np.save(file, volumes.classes[part])
            seal(file)
    return box


def _read_record(path: Path) -> dict[str, Any] | None:
    """Return a record that is as it was written; None for one of a version before the digests."""
    sealed, content = check_seal(path), path.read_bytes()
    record = json.loads(content[:-SEAL_LENGTH] if sealed else content)
    return record if sealed else None


def _check_arrays(stem: Path, spatial: tuple[int, ...], labelled: bool) -> None:
    """Raise FileError for an array that is missing, cut off or of another shape; its values are not read."""
    shapes = {_image_path(stem): (len(MODALITIES), *spatial)} | ({_classes_path(stem): spatial} if labelled else {})
    for path, expected in shapes.items():
        with reading(path, f"an array {expected} with its digest"):
            shape = np.load(path, mmap_mode="r").shape
            if shape != expected or not has_seal(path):
                raise ValueError(f"shape {shape}, {'a' if has_seal(path) else 'no'} digest")


def _mapped(path: Path) -> NDArray[Any]:
    """Return an array, mapped from the disk, that is as it was written."""
    with reading(path, "a preprocessed scan (once it is removed, the next start makes it again)"):
        stat = path.stat()
        _check_once(path, stat.st_size, stat.st_mtime_ns)
        return np.load(path, mmap_mode="r")


@functools.cache
def _check_once(path: Path, size: int, mtime_ns: int) -> None:
    """Raise ValueError for an array that is not as it was written; a process asks once for each state of a file."""
    if not check_seal(path):
        raise ValueError("no digest")


def _fingerprint(case: Case) -> dict[str, list[int]]:
    stats = {path.name: path.stat() for path in case.files}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _record_path(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.json")


def _image_path(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.image.npy")


def _classes_path(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.classes.npy")
