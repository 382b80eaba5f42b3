"""The benchmark of Fourier convolutions compares what agrees, and writes what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.fourier import QUICK, Ours, Periodic, candidates, check_agreement, main, runtimes


def test_quick_mode_writes_text_numbers_and_a_picture(tmp_path: Path) -> None:
    num_threads = torch.get_num_threads()
    main([str(tmp_path), "--quick"])
    assert torch.get_num_threads() == num_threads
    result = json.loads((tmp_path / "fourier.json").read_text())
    for quantity, values in (("channels", QUICK.channels), ("size", QUICK.sizes), ("batch", QUICK.batches)):
        rows = result["over"][quantity]
        assert [row[quantity] for row in rows] == list(values)
        for row in rows:
            assert list(row["operations"]) == ["forward", "inverse", "log-det", "step"]
            assert list(row["operations"]["step"]) == ["plain", "ours", "periodic"]
            assert list(row["operations"]["inverse"]) == ["ours", "periodic"]
    assert 0 <= result["agreement"] < 1e-4
    text = (tmp_path / "fourier.txt").read_text()
    assert "4 channels, 6×6, batch 2" in text and "periodic" in text
    assert (tmp_path / "fourier.png").read_bytes().startswith(b"\x89PNG")


def test_ratios_are_over_the_plain_convolution_where_it_has_the_operation() -> None:
    found = runtimes(2, 4, 1, rounds=1)
    assert found["step"]["plain"]["over_plain"] == found["inverse"]["ours"]["over_ours"] == 1.0
    step = found["step"]
    assert step["ours"]["over_plain"] == pytest.approx(step["ours"]["cpu_seconds"] / step["plain"]["cpu_seconds"])


def test_the_loop_over_frequencies_inverts_itself() -> None:
    ours, periodic = (candidates(3, 5, 2)[name] for name in ("ours", "periodic"))
    assert isinstance(ours, Ours) and isinstance(periodic, Periodic)
    x = periodic.x
    periodic.x = periodic.forward().detach()
    torch.testing.assert_close(periodic.inverse(), x, rtol=0, atol=1e-5)


def test_methods_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Periodic, "inverse", lambda self: self.x)
    with pytest.raises(AssertionError, match="expected equal results"):
        check_agreement(3, 5, 2)
