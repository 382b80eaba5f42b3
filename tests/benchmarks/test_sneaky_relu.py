"""The benchmark of SneakyReLU writes its curve and errors that are those of rounding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.sneaky_relu import SLOPES, main, ours, textbook


def test_quick_mode_writes_text_numbers_and_a_picture(tmp_path: Path) -> None:
    main([str(tmp_path), "--quick"])
    errors = json.loads((tmp_path / "sneaky_relu.json").read_text())["errors"]
    assert list(errors) == [str(slope) for slope in SLOPES]
    assert all(0 < found["ours"] < 1e-5 and found["ours"] < found["textbook"] for found in errors.values())
    assert "textbook" in (tmp_path / "sneaky_relu.txt").read_text()
    assert (tmp_path / "sneaky_relu.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("slope", SLOPES)
def test_both_are_the_same_map_in_double_precision(slope: float) -> None:
    x = torch.linspace(-30, 30, 101, dtype=torch.float64)
    torch.testing.assert_close(textbook(x, slope), x, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(ours(x, slope), x, rtol=1e-12, atol=1e-13)
