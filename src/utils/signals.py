"""The signals that ask a program to end, and their handlers. Imports nothing that takes time."""

import contextlib
import math
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Ctrl-C; kill and schedulers; a terminal that closes; SLURM's warning before a job's time is over (--signal=USR1@120).
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

# Within this time a second signal is the same request: `timeout` signals the process and its group.
REPEATED_S = 1.0

Handler = Callable[[int, FrameType | None], Any]
Handlers = dict[signal.Signals, Any]


def take_over(handler: Handler) -> Handlers:
    """Install ``handler`` for `SIGNALS`, and return the previous handlers for `hand_back`.

    A signal that this process ignores stays ignored, as ``nohup`` and background jobs of a shell want it. Only the main
    thread may set handlers; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heeded}


def hand_back(handlers: Handlers) -> None:
    """Restore the handlers that `take_over` returned, and forget them."""
    for number, handler in handlers.items():
        signal.signal(number, handler)
    handlers.clear()


@contextmanager
def exit_on_signals(advice: str = "") -> Iterator[None]:
    """At signal n, print one line that ends with ``advice`` and end the program by SystemExit with code 128 + n."""
    owner = os.getpid()
    ending_since = -math.inf

    def end(signum: int, frame: FrameType | None) -> None:
        nonlocal ending_since
        if signum != signal.SIGINT and time.monotonic() - ending_since < REPEATED_S:
            return
        ending_since = time.monotonic()
        if os.getpid() == owner:  # a forked worker inherits the handler, and its parent prints the line
            leave_closed_terminal()
            print(f"ended by {signal.Signals(signum).name}{advice}", file=sys.stderr, flush=True)
        sys.exit(128 + signum)

    handlers = take_over(end)
    try:
        yield
    finally:
        hand_back(handlers)


def leave_closed_terminal() -> None:
    """Discard what is printed from now on if the terminal is gone, where each print would raise an OSError."""
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                os.dup2(nothing, descriptor)
        os.close(nothing)
