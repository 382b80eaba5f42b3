"""Run a step on fake tensors, which have shapes but no values, to count its bytes without using them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

# Private, and imported here only: torch has no public name for it.
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode

from src.invertible import RngState, Snapshot


@contextmanager
def fake_values(mode: FakeTensorMode) -> Iterator[None]:
    """Within this context, a network of fake tensors can be trained, with the memory layout of a GPU.

    Fake values cannot be compared, so the checks for changes between forward and backward are switched off, and nothing
    is drawn at random. Without oneDNN, channels come first as on a GPU.
    """
    with (
        mode,
        patch.object(RngState, "__eq__", lambda *_: True),
        patch.object(Snapshot, "refuse_changes", lambda *_: None),
        patch("torch.backends.mkldnn.is_available", bool),
    ):
        yield
