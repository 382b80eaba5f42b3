"""Bytes counted with fake tensors are those of real ones."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

from benchmarks.live_bytes import LiveBytes
from benchmarks.segmentation_memory import as_markdown, count, largest_blowup, measure, network
from src.invertible import POLICIES, set_backprop

TINY = ("network.blowups.narrow=4", "network.num_levels=2")


def tiny() -> torch.nn.Module:
    return network("iunet", "narrow", *TINY)


@pytest.mark.parametrize("policy", POLICIES)
@patch("torch.backends.mkldnn.is_available", bool)
@patch("src.invertible.layers.orthogonal_matrices._squarings", lambda _: 14)  # as on a GPU
def test_fake_and_real_bytes_are_the_same(policy: str) -> None:
    kept, peak = count(tiny(), policy, (8, 8, 8))
    net = tiny()
    set_backprop(net, policy)
    image = torch.zeros(1, 4, 8, 8, 8)
    with LiveBytes() as live:
        loss = net(image).square().mean()
        assert live.now == pytest.approx(kept, rel=0.01)
        loss.backward()
    assert live.peak == pytest.approx(peak, rel=0.02)


def test_reversible_keeps_the_output_and_what_the_linear_ends_need() -> None:
    kept, _ = count(tiny(), "reversible", (16, 16, 16))
    voxels = 16**3
    # The body's output, and the three channels that the loss keeps.
    assert kept == pytest.approx(4 * voxels * (4 + 3), rel=0.01)


def test_the_largest_blowup_solves_the_parabola() -> None:
    def step(blowup: int) -> float:
        return 0.5 + 0.1 * blowup + 0.01 * blowup**2

    blowup = largest_blowup({b: step(b) for b in (16, 32, 64)}, 24.0)
    assert step(blowup) <= 24.0 < step(blowup + 2)


@pytest.mark.slow
def test_all_rows_count_at_the_papers_crop() -> None:
    result = measure(["U-Net", "iUNet-16", "iUNet-32", "iUNet-64"], 24.0)
    by_policy = {r["policy"]: r for r in result["rows"]["iUNet-64"]}
    assert by_policy["reversible"]["kept_gib"] < by_policy["memcnn"]["kept_gib"] < by_policy["stored"]["kept_gib"]
    assert result["largest_iunet_blowup"]["reversible"] > result["largest_iunet_blowup"]["stored"] > 64
    assert "| iUNet-64 | 76.2 M | reversible |" in as_markdown(result)
