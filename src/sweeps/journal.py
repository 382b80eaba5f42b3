"""The file in which Optuna keeps the trials of a search; it survives a kill of the process that writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from src.utils.reading import as_mapping, reading

if TYPE_CHECKING:
    from optuna.storages import JournalStorage


def open_journal(path: Path) -> JournalStorage:
    """Return Optuna's storage of the trials in ``path``, which is created if necessary.

    An incomplete last line is dropped: Optuna would append the next line to it, and then refuse both.

    Raises:
        FileError: for a damaged file, naming the line where it is known.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    # The system releases this lock when a process is killed. Optuna's own lock, a link, would remain, and with a
    # relative path every process would wait for it forever.
    lock = FileLock(path.with_suffix(".lock"))
    with reading(path, "the trials of a search (delete the file to start again)"):
        with lock:
            _check(path)
        return JournalStorage(JournalFileBackend(str(path), lock))  # type: ignore[arg-type]


def _check(path: Path) -> None:
    """Drop an incomplete last line; find damage that Optuna would not name, or only after it has written more lines."""
    content = path.read_bytes() if path.exists() else b""
    complete, end, rest = content.rpartition(b"\n")
    if rest:
        with path.open("r+b") as file:
            file.truncate(len(complete + end))
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            as_mapping(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{error} in line {number}") from error
