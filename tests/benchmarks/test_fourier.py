"""The benchmark of Fourier convolutions compares what agrees, and writes what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import fourier_run
from benchmarks.fourier import LARGEST_MATRIX, QUICK, Ours, Periodic, candidates, check_agreement, main, runtimes
from src.compare.runs import read_run
from src.sweeps.plan import EXPERIMENTS
from src.tables.published import read_published
from src.utils.errors import ConfigError


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
            naive = ["naive"] if row["channels"] * row["size"] ** 2 <= LARGEST_MATRIX else []
            assert list(row["operations"]["inverse"]) == ["ours", "periodic", *naive]
    assert 0 <= result["agreement"] < 1e-4
    text = (tmp_path / "fourier.txt").read_text()
    assert "4 channels, 6×6, batch 2" in text and "periodic" in text
    assert (tmp_path / "fourier.png").read_bytes().startswith(b"\x89PNG")


def test_ratios_are_over_the_plain_convolution_where_it_has_the_operation() -> None:
    found = runtimes(2, 4, 1, rounds=1)
    assert found["step"]["plain"]["over_plain"] == found["inverse"]["ours"]["over_ours"] == 1.0
    step = found["step"]
    assert step["ours"]["over_plain"] == pytest.approx(step["ours"]["seconds"] / step["plain"]["seconds"])


def test_the_loop_over_frequencies_inverts_itself() -> None:
    ours, periodic = (candidates(3, 5, 2)[name] for name in ("ours", "periodic"))
    assert isinstance(ours, Ours) and isinstance(periodic, Periodic)
    x = periodic.x
    periodic.x = periodic.forward().detach()
    torch.testing.assert_close(periodic.inverse(), x, rtol=0, atol=1e-5)


def test_the_naive_matrix_exists_up_to_a_size_only() -> None:
    channels, size = 3, round((LARGEST_MATRIX / 3) ** 0.5)
    assert "naive" in candidates(channels, size, 1) and "naive" not in candidates(channels, size + 1, 1)


def test_methods_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Periodic, "inverse", lambda self: self.x)
    with pytest.raises(AssertionError, match="expected equal results"):
        check_agreement(3, 5, 2)


def test_one_setting_leaves_a_summary_with_the_metrics_of_the_table(tmp_path: Path) -> None:
    fourier_run.main(["setting=2x4", "batch=1", "rounds=1", f"run_dir={tmp_path}"])
    run = read_run(tmp_path)
    assert run.config["setting"] == "2x4" and run.summary["num_parameters"] == 2 * 2 * 9 + 2
    columns = read_published(EXPERIMENTS / "iconvnet_figure2" / "published.yaml").columns
    assert {column.metric for column in columns} < run.summary["metrics"].keys()
    assert min(run.summary["metrics"].values()) > 0


@pytest.mark.parametrize("arguments", [["setting=8"], ["setting=8x0"], ["rounds=0"], ["batch=x"], ["settin=8x8"]])
def test_settings_that_cannot_be_measured_are_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        fourier_run.read_setting(arguments)
