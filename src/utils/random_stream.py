"""Random numbers that do not disturb those of the training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_stream(seed: int, device: torch.device) -> Iterator[None]:
    """Inside the block, torch draws from a stream that starts at ``seed``; afterwards the previous stream continues.

    It replaces the generators of the CPU and of ``device``.
    """
    is_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        # Not torch.manual_seed: it seeds all devices, also those whose state is not restored.
        torch.default_generator.manual_seed(seed)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
