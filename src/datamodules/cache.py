"""Making a data set's files once: one process at a time, and parallel work with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

import torch
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from src.utils.errors import say

Task = TypeVar("Task")


def require_writable(folder: Path) -> None:
    """Make the folder where it does not exist yet, and raise ValueError, naming it, where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"expected a folder that can be written to, got {folder}: {error.strerror}") from error


def exclusive(path: Path, activity: str) -> AbstractContextManager[object]:
    """Return a context for one process at a time; ``path`` is the lock's file, ``activity`` what the others do."""
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        say(f"Waiting for another process that {activity}")
        return lock.acquire()


def run_parallel(function: Callable[[Task], object], tasks: Sequence[Task], num_workers: int, description: str) -> None:
    """Call `function` for every task, in `num_workers` fresh processes (0: in this one), with a progress bar.

    An exception in a worker is raised here. After any exception, an interruption included, the workers are
    ended and the tasks that have not begun are dropped.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(description, total=len(tasks))
        done = _run_in_processes(function, tasks, num_workers) if num_workers else map(function, tasks)
        for _ in done:
            progress.advance(bar)


def _run_in_processes(function: Callable[[Task], object], tasks: Sequence[Task], num_workers: int) -> Iterator[object]:
    """Yield the results as they come."""
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        min(num_workers, len(tasks)),
        # A forked copy of a process that runs threads, as torch does, can deadlock; a spawned one cannot.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    try:
        with _ctrl_c_held_back():
            futures = [executor.submit(function, task) for task in tasks]
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
    """Start no process that hears Ctrl-C: a worker would answer with a traceback as long as it imports."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """Prepare a worker: one thread, and its end left to the parent, which it does not outlive."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
