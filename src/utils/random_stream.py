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
    is_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        # Not torch.manual_seed, which seeds all devices, those whose state comes back and those whose does not.
        torch.default_generator.manual_seed(seed)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
