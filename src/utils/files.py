"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# Of files that are being written; those of a process that was killed stay.
TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Have an OSError say which file it is about: one that a write raises, as on a full disk, does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path`` that takes its place when the block ends without an error.

    It can be read too. It lies in the same folder, because a rename is atomic only within one file system, and is
    flushed to the disk first, because a rename may otherwise outlive the data in a power cut.

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
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path, others: Collection[str] = ()) -> None:
    """Remove what `atomic_write` could not finish anywhere below ``folder``, because its process was killed.

    Nobody may be writing there now, except in the subfolders named in ``others``, which are left alone.
    """
    for path in folder.rglob(f".*{TEMPORARY_SUFFIX}"):
        if path.is_file() and path.relative_to(folder).parts[0] not in others:
            path.unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    with atomic_write(path) as file:
        file.write(text.encode())


def _umask() -> int:
    # The umask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
