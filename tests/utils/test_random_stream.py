"""Streams of random numbers apart from that of the training."""

from __future__ import annotations

import pytest
import torch

from src.utils.random_stream import own_stream

CPU = torch.device("cpu")


def test_a_stream_starts_at_its_seed_and_leaves_the_other_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(7)
    own = torch.rand(2)
    torch.manual_seed(1)
    found = [torch.rand(2)]
    with own_stream(7, CPU):
        assert torch.equal(torch.rand(2), own)
    found.append(torch.rand(2))
    assert torch.equal(torch.cat(found), expected)


def test_a_stream_of_the_cpu_seeds_no_other_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their generators are not put back, so the training's would begin anew with every sample."""
    seeded: list[int] = []
    for name in ("manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, seeded.append)
    with own_stream(7, CPU):
        pass
    assert not seeded


@pytest.mark.gpu
def test_a_stream_of_a_gpu_leaves_its_generator_alone() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    torch.manual_seed(1)
    expected = torch.rand(4, device=device)
    torch.manual_seed(7)
    own = torch.rand(2, device=device)
    torch.manual_seed(1)
    found = [torch.rand(2, device=device)]
    with own_stream(7, device):
        assert torch.equal(torch.rand(2, device=device), own)
    with own_stream(7, CPU):
        pass
    found.append(torch.rand(2, device=device))
    assert torch.equal(torch.cat(found), expected)
