"""One process at a time in a run folder."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.runs.folder import SUBFOLDERS, RunFolder
from src.utils.errors import ConfigError
from src.utils.files import remove_leftovers


@contextmanager
def only_process(run_dir: str | Path) -> Iterator[None]:
    """Create the folder, keep other processes out of it, and remove the unfinished files of a killed process.

    The lock belongs to this process alone and ends with it, however it ends: a worker that outlives the process does
    not hold it. On a file system without locks there is none. A new folder into which an error let nothing be written
    is removed.

    Raises:
        ConfigError: if another process writes to the folder.
    """
    folder = Path(run_dir)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = RunFolder(folder).lock
    with lock.open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise ConfigError(
                    f"expected a run folder that no other process uses, got {str(folder)!r}, which "
                    f"{file.read() or 'another process'} uses; wait until it ends or choose another run_dir"
                ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        remove_leftovers(folder, SUBFOLDERS)
        try:
            yield
        except BaseException:
            if is_new and list(folder.iterdir()) == [lock]:
                lock.unlink()
                folder.rmdir()
            raise
