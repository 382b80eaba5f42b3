"""The search for the largest cube, by counted bytes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import cubes
from benchmarks.cubes import CUBES, Counted, fits, largest
from benchmarks.live_bytes import LiveBytes
from benchmarks.peers import Definition

TINY = Definition(channels=4, levels=2, couplings=1)


@pytest.mark.parametrize("limit", [1, 7, 64, 100])
@pytest.mark.parametrize("step", [1, 4])
def test_the_largest_size_is_found_in_few_trials(step: int, limit: int) -> None:
    for bound in range(limit + 1):
        trials: list[int] = []

        def size_fits(size: int, bound: int = bound, trials: list[int] = trials) -> bool:
            trials.append(size)
            return size <= bound

        assert largest(size_fits, step, limit) == min(bound, limit) // step * step
        assert all(size % step == 0 and 0 < size <= limit for size in trials)
        assert len(trials) <= 2 * max(limit // step, 1).bit_length() + 1


@pytest.mark.parametrize("name", CUBES)
def test_counted_bytes_are_those_of_a_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", bool)
    shape = (1, 1, 16, 16, 16)
    net = CUBES[name](TINY)
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    with LiveBytes() as live:
        net(torch.zeros(shape)).square().mean().backward()
    assert Counted(CUBES[name](TINY), bf16=False)(shape) == pytest.approx(live.peak + 3 * weights, rel=0.02)


@pytest.mark.slow
def test_a_step_at_512_fits_on_a_card_of_40_gb() -> None:
    net = CUBES["iUNet, reversible"](Definition(channels=16, levels=8, couplings=4))
    assert Counted(net, bf16=True)((1, 1, 512, 512, 512)) < 35 * 2**30


def test_a_limit_is_met() -> None:
    net = CUBES["iUNet, reversible"](TINY)
    size = Counted(net, bf16=False)((1, 1, 8, 8, 8))
    assert fits(CUBES["iUNet, reversible"](TINY), "cpu", False, (size + 1) / 2**30)((1, 1, 8, 8, 8))
    assert not fits(CUBES["iUNet, reversible"](TINY), "cpu", False, (size - 1) / 2**30)((1, 1, 8, 8, 8))


def test_the_reversible_network_needs_less() -> None:
    deep = Definition(channels=4, levels=2, couplings=4)
    counts = [
        Counted(CUBES[f"iUNet, {policy}"](deep), bf16=False)((1, 1, 16, 16, 16)) for policy in ("reversible", "stored")
    ]
    assert counts[0] < 0.5 * counts[1]


@pytest.mark.slow
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stem = tmp_path / "cubes"
    sizes = ["--channels", "4", "--levels", "2", "--couplings", "1", "--limit", "4", "--limit-gib", "0.002"]
    monkeypatch.setattr(
        sys, "argv", ["cubes", "--device", "cpu", *sizes, "--size", "16", "--rounds", "1", "--output", str(stem)]
    )
    cubes.main()
    result = json.loads(stem.with_suffix(".json").read_text())
    assert set(result["largest_cubes"]) == set(CUBES)
    assert result["speed"]["rows"]["reversible"]["seconds"] > 0
    assert "| step in bfloat16 |" in capsys.readouterr().out
