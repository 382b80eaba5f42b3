"""Random numbers apart from those of the training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_stream(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch draws from a stream that starts at ``seed``; outside, the other stream goes on as if nothing was.

    Args:
        seed: of the stream.
        device: whose generator is meant, besides the CPU's.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
