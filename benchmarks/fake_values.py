"""Run a step on fake tensors, which have shapes but no values, to count its bytes without using them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from torch import nn

# Private, and imported here only: torch has no public name for it.
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode

from src.invertible import RngState, Snapshot


def make_fake(net: nn.Module, mode: FakeTensorMode) -> None:
    """Replace a network's parameters and buffers by fake tensors."""
    for module in net.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(mode.from_tensor(parameter.detach()))
        module._buffers.update({n: None if b is None else mode.from_tensor(b) for n, b in module._buffers.items()})


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
