"""Arrays that are mapped from the disk, and the records that say what they were made from; each with its digest."""

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.utils.files import atomic_write
from src.utils.reading import as_mapping, reading
from src.utils.seal import SEAL_LENGTH, check_seal, has_seal, seal


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy with a digest, completely or not at all."""
    with atomic_write(path) as file:
        np.save(file, array)
        seal(file)


def check_array(path: Path, expected: tuple[int, ...]) -> None:
    """Raise FileError for an array that is missing, cut off or of another shape; its values are not read."""
    with reading(path, f"an array {expected} with its digest"):
        shape = np.load(path, mmap_mode="r").shape
        if shape != expected or not has_seal(path):
            raise ValueError(f"shape {shape}, {'a' if has_seal(path) else 'no'} digest")


def mapped_array(path: Path, what: str) -> NDArray[Any]:
    """Return an array, mapped from the disk, after its digest was checked; raise FileError if it is damaged."""
    with reading(path, f"{what} (remove it, and the next start makes it again)"):
        stat = path.stat()
        _check_once(path, stat.st_size, stat.st_mtime_ns)
        return np.load(path, mmap_mode="r")


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON with a digest, completely or not at all."""
    with atomic_write(path) as file:
        file.write(json.dumps(record).encode())
        seal(file)


def read_record(path: Path, what: str) -> dict[str, Any] | None:
    """Return a record, None if there is none or it has no digest; raise FileError if it is damaged."""
    if not path.exists():
        return None
    with reading(path, what):
        sealed, content = check_seal(path), path.read_bytes()
        # Parsed in any case: what is left of a damaged digest is no JSON.
        record = as_mapping(json.loads(content[:-SEAL_LENGTH] if sealed else content))
        return record if sealed else None


def fingerprint(paths: Iterable[Path]) -> list[list[str | int]]:
    """Return path, size and time of each file, as a record reads them back; they tell whether one changed."""
    stats = [(path.resolve(), path.stat()) for path in paths]
    return [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats]


@functools.cache
def _check_once(path: Path, size: int, mtime_ns: int) -> None:
    """Raise ValueError for an array that is not as it was written; a process asks once for each state of a file."""
    if not check_seal(path):
        raise ValueError("no digest")
