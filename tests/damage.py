"""Damage files at random."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np


def bit_flips(path: Path, count: int, seed: int = 0) -> Iterator[int]:
    """Flip ``count`` random bits of a file one at a time; yield each while flipped, and restore the file."""
    content = path.read_bytes()
    for bit in np.random.default_rng(seed).choice(8 * len(content), count, replace=False).tolist():
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        yield bit
    path.write_bytes(content)
