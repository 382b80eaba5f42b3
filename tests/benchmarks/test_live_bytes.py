"""Counted bytes are those of the tensors that live."""

from __future__ import annotations

import torch

from benchmarks.live_bytes import LiveBytes


def test_what_is_made_counts_until_it_is_freed() -> None:
    before = torch.zeros(1000)
    with LiveBytes() as live:
        a = torch.ones(8)
        assert live.now == 32
        view = a[2:]
        same = a.add_(before[:8])
        assert live.now == 32
        b = a.double()
        assert live.now == 32 + 64
        del a, same
        assert live.now == 32 + 64  # the view holds it
        del view
        assert live.now == 64
        del b
        assert live.now == 0
    assert live.peak == 96


def test_a_storage_counts_with_its_present_size() -> None:
    with LiveBytes() as live:
        a = torch.ones(8)
        a.untyped_storage().resize_(0)
        assert live.now == 0


def test_what_autograd_keeps_counts() -> None:
    x = torch.ones(16, requires_grad=True)
    with LiveBytes() as live:
        y = x.exp()  # keeps its output
        z = y.sum()
        del y
        assert live.now == 64 + 4
        z.backward()
        # The result and the gradient.
        assert live.now == 4 + 64
