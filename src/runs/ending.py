"""What a run that ends early says and returns."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from src.runs.interrupt import CheckpointOnInterrupt
from src.runs.last_checkpoint import last_checkpoint
from src.utils.errors import add_note, say

if TYPE_CHECKING:
    from src.runs.build import Run


@contextmanager
def ending(run: Run) -> Iterator[None]:
    """Say how to go on with a run that a signal or an error ends, and exit with the code that a signal has by custom.

    Raises:
        SystemExit: with 128 + n after signal n.
    """
    run_dir = run.config.run_dir
    advice = f"go on with: python train.py resume={run_dir}"
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        say(advice if last_checkpoint(run_dir).exists() else "interrupted before the first checkpoint")
        # Lightning turns Ctrl-C and SIGTERM into a SystemExit of its own, SIGTERM's with exit code 0.
        interrupt = run.callback(CheckpointOnInterrupt)
        if interrupt is not None and interrupt.received is not None:
            sys.exit(128 + interrupt.received)
        raise
    except Exception as error:
        if last_checkpoint(run_dir).exists():
            add_note(error, advice)
        raise
