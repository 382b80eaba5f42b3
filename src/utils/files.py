"""Files that are written completely or not at all, and names that a file system accepts."""

import csv
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

# Suffix of files that are being written. A process that is killed leaves them behind.
TEMPORARY_SUFFIX = ".tmp"
# A file system allows 255 bytes; the rest is for endings, digests and the names of temporary files.
MAX_NAME_BYTES = 180


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add the file's name to an OSError without one, such as a write to a full disk raises."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file, for writing and reading, that replaces ``path`` when the block ends without an error.

    It is in the same folder, because a rename is atomic only within one file system. It is flushed to the disk first;
    otherwise a power cut could keep the rename but lose the data.

    Raises:
        OSError: naming ``path``, if it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX)
    try:
        with naming(path), os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.umask(mask := os.umask(0))  # it can only be read by setting it
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path, others: Collection[str] = ()) -> None:
    """Remove the temporary files below ``folder`` of processes that were killed during `atomic_write`.

    No process may be writing there, except to the subfolders ``others``, which are left alone.
    """
    for path in folder.rglob(f".*{TEMPORARY_SUFFIX}"):
        if path.is_file() and path.relative_to(folder).parts[0] not in others:
            path.unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_csv(path: str | os.PathLike[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows, of which the first one is the header, as a CSV file, see `atomic_write`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def shortened(name: str, limit: int = MAX_NAME_BYTES) -> str:
    """Return ``name``, cut to ``limit`` bytes and ending with a digest of the whole name if it is longer."""
    return name if len(name.encode()) <= limit else _with_digest(name, name, limit)


def plain_name(name: str, limit: int = MAX_NAME_BYTES) -> str:
    """Return ``name`` if it is short and of ASCII letters, digits and ``._-`` only, else a plain one with a digest."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", name)
    return name if plain == name and len(name) <= limit else _with_digest(plain, name, limit)


def _with_digest(text: str, name: str, limit: int) -> str:
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{text.encode()[: limit - 9].decode(errors='ignore')}-{digest}"
