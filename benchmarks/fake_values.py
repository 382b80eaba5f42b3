"""A step on tensors that have shapes and no values: how many bytes it takes, without the bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from torch._subclasses.fake_tensor import FakeTensorMode

from src.invertible import RngState, Snapshot


@contextmanager
def fake_values(mode: FakeTensorMode) -> Iterator[None]:
    """Inside, a network of fake tensors may be trained, laid out in memory as on a GPU.

    Values that do not exist cannot be compared: so nothing is drawn at random, and nothing changes between forward and
    backward. Without oneDNN channels come first, as on a GPU.
    """
    with (
        mode,
        patch.object(RngState, "__eq__", lambda *_: True),
        patch.object(Snapshot, "refuse_changes", lambda *_: None),
        patch("torch.backends.mkldnn.is_available", bool),
    ):
        yield
