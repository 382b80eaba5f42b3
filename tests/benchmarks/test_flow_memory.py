"""Counted bytes of flows: those of a real step, linear in the pixels, and peers that are not there."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import flow_memory
from benchmarks.flow_memory import CHANNELS, OTHER_COPIES, Definition, as_markdown, measure, networks, ours, step_bytes
from benchmarks.live_bytes import LiveBytes
from src.invertible import POLICIES

TINY = Definition(levels=2, steps=2, hidden=8)


@pytest.mark.parametrize("policy", POLICIES)
def test_counted_bytes_are_those_of_a_step(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", bool)
    net, loss = ours(TINY, policy)
    x = torch.zeros(1, CHANNELS, 32, 32)
    with LiveBytes() as live:
        loss(x).backward()
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    expected = live.peak + OTHER_COPIES * weights + x.numel() * x.element_size()
    assert step_bytes(*ours(TINY, policy), 32)[1] == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
def test_bytes_grow_linearly_with_the_pixels_and_the_largest_square_fits() -> None:
    limit = 0.01
    [found] = [measure(TINY, [limit], (64, 128))["rows"]["ours, reversible"]]
    side = found["largest_side"]["0.01"]
    fitting, beyond = (step_bytes(*ours(TINY, "reversible"), n)[1] / 2**30 for n in (side, side + 16))
    assert 0.95 * limit < fitting <= limit < beyond


@pytest.mark.slow
def test_what_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in ("normflows", "FrEIA"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(flow_memory, "Definition", lambda: TINY)
    flow_memory.main(["--output", str(tmp_path / "found.json")])
    result = json.loads((tmp_path / "found.json").read_text())
    assert result["rows"]["normflows"] == "not importable: normflows"
    assert "| FrEIA | not importable: FrEIA |" in as_markdown(result)
    assert set(result["rows"]) == set(networks(TINY))


@pytest.mark.parametrize("name", ["normflows", "FrEIA"])
def test_peers_keep_more_than_the_reversible_flow(name: str) -> None:
    pytest.importorskip(name)
    kept = [step_bytes(*networks(TINY)[one](), 32)[0] for one in (name, "ours, reversible")]
    assert kept[0] > 5 * kept[1]
