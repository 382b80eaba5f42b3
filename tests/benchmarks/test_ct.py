"""The benchmark of the CT simulation compares what agrees, and writes what it measured."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.ct import PEERS, QUICK, compare, main
from benchmarks.ct_peers import AstraSlices, Tasks, available, check_agreement, covered, relative_rms
from benchmarks.ct_stages import STAGES, Setting, stage_seconds, variations
from src.ct.foam import FoamPhantom
from src.ct.simulation import simulate

TINY = Setting(8, 10, 4)


def test_quick_mode_writes_text_numbers_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    num_threads = torch.get_num_threads()
    main([str(tmp_path), "--quick"])
    assert torch.get_num_threads() == num_threads
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "ct.json").read_text())
    for name in PEERS:
        assert (f"{name} cannot be imported and is skipped" in printed) != (name in result["peers"])
    settings = variations(QUICK.base, **QUICK.others)
    assert [Setting(row["size"], row["balls"], row["views"]) for row in result["stages"]] == settings
    assert all(row[stage] > 0 for row in result["stages"] for stage in (*STAGES, "sum"))
    for row in result["beside_peers"]:
        assert list(row["tasks"]) == ["placement", "voxelisation", "projection", "FBP"]
        assert all(candidates["ours"]["over_ours"] == 1 for candidates in row["tasks"].values())
    assert result["generation"]["volumes"] == QUICK.volumes
    assert result["generation"]["cpu_seconds"] > 0
    assert [row["size"] for row in result["loaders"]] == [QUICK.small.size, QUICK.base.size]
    assert result["loaders"][0]["step_seconds"] > 0
    text = (tmp_path / "ct.txt").read_text()
    assert f"{QUICK.volumes} volumes in" in text and "on a GPU: not measured" in text
    assert (tmp_path / "ct.png").read_bytes().startswith(b"\x89PNG")


def test_stages_are_those_of_a_simulated_scan() -> None:
    result = simulate(TINY.spec(), 0)
    assert result.truth.shape == (TINY.size,) * 3
    assert len(result.phantom.radii) == TINY.balls and result.geometry.num_views == TINY.views
    seconds = stage_seconds(TINY, range(1))
    assert seconds["sum"] == pytest.approx(sum(seconds[stage] for stage in STAGES))


def test_variations_change_one_value_each() -> None:
    found = variations(TINY, size=(8, 12), views=(6,))
    assert found == [TINY, Setting(12, 10, 4), Setting(8, 10, 6)]
    assert str(TINY) == "8³, 10 balls, 4 views"


def test_ratios_are_over_ours() -> None:
    def work() -> None:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    found = compare({"task": {"ours": work, "theirs": lambda: [work() for _ in range(4)]}}, rounds=3)["task"]
    assert found["ours"]["over_ours"] == 1
    assert found["theirs"]["over_ours"] == pytest.approx(4, rel=0.2)


def test_covered_is_the_porosity_of_what_is_inside() -> None:
    inside = FoamPhantom(1.0, 1.0, np.array([[0.1, 0.0, 0.2]]), np.array([0.6]))
    assert covered(inside) == pytest.approx(inside.porosity, rel=1e-3)
    half_outside = FoamPhantom(1.0, 1.0, np.array([[0.0, 0.0, 1.0]]), np.array([0.6]))
    assert covered(half_outside) == pytest.approx(half_outside.porosity / 2, rel=0.01)


def test_peers_agree_with_ours() -> None:
    peers = available()
    found = check_agreement(TINY, peers)
    assert ("FBP, astra" in found) == ("astra" in peers)
    assert ("voxelisation, foam_ct_phantom" in found) == ("foam_ct_phantom" in peers)


def test_a_peer_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("astra")
    monkeypatch.setattr(AstraSlices, "fbp", lambda self, sinograms: np.zeros((1, 16, 16)))
    with pytest.raises(AssertionError, match="FBP, astra differs by 1"):
        check_agreement(TINY, ["astra"])


def test_slices_of_astra_and_scikit_image_are_those_of_the_phantom() -> None:
    pytest.importorskip("astra")
    tasks = Tasks(Setting(32, 10, 60))
    names = ["astra", "skimage"]
    candidates = tasks.candidates(names)
    assert list(candidates["FBP"]) == ["ours", *names] and list(candidates["placement"]) == ["ours"]
    results = {name: done() for name, done in candidates["FBP"].items()}
    expected = results["ours"].numpy()
    disc = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, 64)] * 2)) < 0.9
    for name in names:
        assert results[name].shape == expected.shape
    # The middle slice, where the row of the detector is the slice's.
    assert relative_rms(results["astra"][32, disc], expected[32, disc]) < 0.15
    theirs = candidates["projection"]["astra"]()
    rows = tasks.slices  # of the exact projections
    assert relative_rms(theirs[:, 32], rows[:, 32]) < 0.1
