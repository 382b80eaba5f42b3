"""Words to the person who runs a program."""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """Print a line on stderr, once for all processes of a distributed run; no library's log level can silence it."""
    # Here, because most processes never say anything, and those of `run_parallel` have no use for Lightning.
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    if getattr(rank_zero_only, "rank", 0) == 0:
        print(message, file=sys.stderr, flush=True)
