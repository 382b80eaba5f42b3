"""Files that are made once and then only read: their folder's name, the lock, repairs, and parallel work."""

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from src.utils.digest import digest
from src.utils.errors import say
from src.utils.files import TEMPORARY_SUFFIX, write_text

Item = TypeVar("Item")

LOCK_NAME = "making.lock"


class UnwritableFolderError(ValueError):
    """Files are missing, and their folder cannot be written."""


def folder_name(label: str, parameters: Mapping[str, Any]) -> str:
    """Return ``<label>-<digest>``, another name whenever a parameter of the files differs."""
    return f"{label}-{digest(parameters, 12)}"


def make_missing(
    folder: Path,
    activity: str,
    find_unusable: Callable[[], Mapping[Item, str | None]],
    make: Callable[[list[Item]], object],
    parameters: Mapping[str, Any] | None = None,
) -> None:
    """Make the files of a folder that are missing or damaged; one process at a time, while the others wait.

    A complete folder is only read.

    Args:
        folder: of the files.
        activity: "makes ...", for the message of the processes that wait.
        find_unusable: returns the items to make, each with the file's name and its damage, or None if it is missing.
        make: makes items, each file atomically, as `atomic_write` and `whole_folder` do.
        parameters: of the files, for ``parameters.json`` beside them.

    Raises:
        UnwritableFolderError: items have to be made, and the folder cannot be written.
    """
    # Imported late: worker processes import this file, make single files only, and start sooner without Lightning.
    from pytorch_lightning.utilities import rank_zero_warn

    if not find_unusable():
        return
    require_writable(folder)
    with exclusive(folder, activity):
        _remove_leftovers(folder)
        if parameters is not None:
            write_text(folder / "parameters.json", json.dumps(parameters, indent=2))
        unusable = find_unusable()
        for damage in filter(None, unusable.values()):
            rank_zero_warn(f"Replacing a damaged file: {damage}")
        if unusable:
            make(list(unusable))


def require_writable(folder: Path) -> None:
    """Make the folder if it does not exist yet; raise UnwritableFolderError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UnwritableFolderError(
            f"expected a folder that can be written to, got {folder}: {error.strerror}"
        ) from error


def exclusive(folder: Path, activity: str) -> AbstractContextManager[object]:
    """Return a context for one process at a time in ``folder``; ``activity`` is what the others do meanwhile."""
    lock = FileLock(folder / LOCK_NAME)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        say(f"Waiting for another process that {activity}")
        return lock.acquire()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder that becomes ``path`` when the block ends without an error, and otherwise vanishes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, suffix=TEMPORARY_SUFFIX) as temporary:
        # Not the temporary folder itself, which only its owner may enter.
        folder = Path(temporary) / path.name
        folder.mkdir()
        yield folder
        os.replace(folder, path)


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left unfinished: whoever writes now holds the lock."""
    for leftover in list(folder.rglob(f"*{TEMPORARY_SUFFIX}")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def run_parallel(function: Callable[[Item], object], items: Sequence[Item], num_workers: int, description: str) -> None:
    """Call `function` for every item, in `num_workers` fresh processes (0: in this one), with a progress bar.

    An exception in a worker is raised here. After any exception, an interruption included, the workers are
    ended and the items that have not begun are dropped.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task(description, total=len(items))
        done = _run_in_processes(function, items, num_workers) if num_workers else map(function, items)
        for _ in done:
            progress.advance(bar)


def _run_in_processes(function: Callable[[Item], object], items: Sequence[Item], num_workers: int) -> Iterator[object]:
    """Yield the results as they come."""
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        min(num_workers, len(items)),
        # A forked copy of a process that runs threads, as torch does, can deadlock; a spawned one cannot.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    try:
        with _ctrl_c_held_back():
            futures = [executor.submit(function, item) for item in items]
        for future in as_completed(futures):
            yield future.result()
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    executor.shutdown()


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Start processes that do not hear Ctrl-C: a worker that is still importing would answer with a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """Limit a worker to one thread, and let only its parent end it, which it does not outlive."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
