"""One process at a time in a run folder."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.utils.errors import ConfigError
from src.utils.files import remove_leftovers

LOCK = ".lock"
# What other programs write there, perhaps at this moment: eval.py, predict.py and W&B.
OTHERS = ("eval", "predict", "wandb")


@contextmanager
def only_process(run_dir: str | Path) -> Iterator[None]:
    """Make the folder, keep other processes out of it, and remove the half files of a process that was killed in it.

    The lock belongs to this process alone and ends with it, however it ends; a worker that outlives it has no part in
    it. Where the file system knows no locks there is none.

    Raises:
        ConfigError: if another process is in there.
    """
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise ConfigError(
                    f"expected a run folder that no other process writes to, got {str(folder)!r}, where "
                    f"{file.read() or 'another process'} runs; wait for its end, or choose another run_dir"
                ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        remove_leftovers(folder, OTHERS)
        yield
