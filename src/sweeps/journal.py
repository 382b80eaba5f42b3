"""The file that Optuna keeps the trials of a search in, after any end of the process that wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from src.utils.reading import as_mapping, reading

if TYPE_CHECKING:
    from optuna.storages import JournalStorage


def open_journal(path: Path) -> JournalStorage:
    """Return Optuna's storage of the trials in ``path``, which is made if it is not there.

    What a kill left of a last line is dropped: Optuna would write the next line behind it, and refuse both.

    Raises:
        FileError: for a damaged file, naming the line where it is known.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    # The system takes this lock from a process that is killed. Optuna's own, a link, stays, and with a relative path
    # everyone waits for it for ever.
    lock = FileLock(path.with_suffix(".lock"))
    with reading(path, "the trials of a search; without this file it begins anew"):
        with lock:
            _drop_unfinished_line(path)
            _check_lines(path)
        return JournalStorage(JournalFileBackend(str(path), lock))  # type: ignore[arg-type]


def _drop_unfinished_line(path: Path) -> None:
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)


def _check_lines(path: Path) -> None:
    """Find the damage that Optuna would not name, or not before it has written more lines."""
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], start=1):
        try:
            as_mapping(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{error} in line {number}") from error
