"""What is found for the paths of a command line, and what is said where nothing is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from src.compare.runs import read_result, read_run
from src.compare.sources import find_sources, short_names
from src.runs.folder import RunFolder, picture_name
from src.runs.summary import write_summary
from tests.compare.folders import summary, write_picture, write_run, write_unfinished

ROOT = Path(__file__).resolve().parents[2]


def test_a_finished_run(tmp_path: Path) -> None:
    names = [("test-000", None), ("val-000", 0), ("val-000", 5), ("val-001", 5)]
    run = read_run(write_run(tmp_path / "run", pictures=names))
    assert run.finished and run.summary["metrics"] == summary()["metrics"]
    assert run.config == summary()["config"] and "config" not in run.summary
    assert run.history["val/psnr"] == [(step, 20.0 + step) for step in range(6)]
    epochs = {name: list(series) for name, series in run.pictures.items()}
    assert epochs == {"test-000": [None], "val-000": [0, 5], "val-001": [5]}
    assert run.pictures["val-000"][5] == RunFolder(tmp_path / "run").images / picture_name("val-000", 5)


def test_an_unfinished_run_shows_what_it_has(tmp_path: Path) -> None:
    run = read_run(write_unfinished(tmp_path / "run"))
    assert not run.finished
    assert run.summary["metrics"] == {"train/loss": 1 / 6, "val/psnr": 25.0}
    shown = [run.summary[key] for key in ("experiment", "scale", "model", "backprop", "seed")]
    assert shown == ["ct_postproc", "small", "unet", "reversible", 3]
    # Interpolations have their values.
    assert run.config["callbacks"]["curves"]["dirpath"] == str(tmp_path / "run")


def test_a_run_that_goes_on_after_its_summary_is_unfinished(tmp_path: Path) -> None:
    folder = write_unfinished(tmp_path / "run")
    for steps, finished in ((6, True), (4, False)):
        write_summary(summary(steps=steps, run_dir=str(folder)))
        run = read_run(folder)
        assert run.finished == finished
        assert run.summary["metrics"]["val/psnr"] == (22.0 if finished else 25.0)


def test_a_damaged_summary_is_named(tmp_path: Path) -> None:
    path = RunFolder(write_run(tmp_path / "run")).summary
    path.write_text("[]")
    for read, source in ((read_run, path.parent), (read_result, path)):
        with pytest.raises(ValueError, match="expected a JSON object") as caught:
            read(source)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1", "expected the configuration of a run"),
        ("2026-01-01: 1\n", "it has no experiment"),
        ("", "it has no experiment"),
        ("seed: 1", "it has no experiment, scale, model, backprop"),
        (
            "{experiment: a, scale: b, backprop: c, seed: 1, model: net}",
            "expected model to be a section, got 'net'",
        ),
    ],
)
def test_a_damaged_configuration_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = RunFolder(tmp_path).config
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_run(path.parent)
    assert str(path) in str(caught.value)


def test_folders_of_runs_and_runs_are_found_once(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a" / "first")
    write_run(tmp_path / "a" / "second" / "deep")
    # A later test of a run belongs to it.
    write_run(first / "eval" / "again")
    found = find_sources([str(first), str(tmp_path / "a"), str(tmp_path / "a" / "first" / "..")])
    assert {name: run.path for name, run in found.runs.items()} == {
        "first": first,
        "deep": tmp_path / "a" / "second" / "deep",
    }
    assert list(find_sources([str(first / "eval" / "again")]).runs) == ["again"]
    assert list(find_sources([str(RunFolder(first).summary)]).runs) == ["summary"]


def test_a_damaged_run_of_a_folder_is_left_out_and_said(tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    RunFolder(write_run(tmp_path / "bad")).summary.write_text("{")
    found = find_sources([str(tmp_path)])
    assert list(found.runs) == ["good"]
    assert len(found.notes) == 1 and str(RunFolder(tmp_path / "bad").summary) in found.notes[0]


def test_a_paper_table_has_its_results_and_figures(tmp_path: Path) -> None:
    results = tmp_path / "key" / "results"
    results.mkdir(parents=True)
    (results / "small_seed0.json").write_text(json.dumps(summary()))
    (results / "table.json").write_text("[]")
    write_picture(results / "figure.png")
    found = find_sources([str(tmp_path / "key")])
    assert list(found.runs) == ["small_seed0"] and not found.runs["small_seed0"].history
    assert found.figures == {"key: figure": results / "figure.png"}
    assert "table.json" in found.notes[0]


def test_a_paper_table_may_have_a_folder_per_scale(tmp_path: Path) -> None:
    for scale in ("small", "paper"):
        folder = tmp_path / "key" / "results" / scale
        folder.mkdir(parents=True)
        (folder / "seed0.json").write_text(json.dumps(summary()))
        write_picture(folder / "figure.png")
    found = find_sources([str(tmp_path / "key")])
    assert list(found.runs) == ["paper/seed0", "small/seed0"]
    assert list(found.figures) == ["key: paper/figure", "key: small/figure"]
    assert list(find_sources([str(folder)]).runs) == ["seed0"]


@pytest.mark.parametrize("table", sorted(p.parent.name for p in (ROOT / "experiments").glob("*/results/")))
def test_every_committed_table_can_be_read(table: str) -> None:
    folder = ROOT / "experiments" / table
    files = sorted((folder / "results").rglob("*.json"))
    if not files:
        with pytest.raises(ValueError, match="without any run"):
            find_sources([str(folder)])
        return
    found = find_sources([str(folder)])
    assert [run.path for run in found.runs.values()] == files and not found.notes


def test_a_path_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a run folder .*, got '.*nowhere'"):
        find_sources([str(tmp_path / "nowhere")])
    with pytest.raises(ValueError, match=r"expected a run folder with summary.json, got .* without any run"):
        find_sources([str(tmp_path)])
    with pytest.raises(ValueError, match=r"expected a run folder with summary.json, got"):
        read_run(tmp_path)


def test_names_are_as_short_as_they_can_be() -> None:
    assert short_names([Path("/o/a/x"), Path("/o/a/y")]) == ["x", "y"]
    assert short_names([Path("/o/a/x"), Path("/o/b/x"), Path("/o/b/y")]) == ["a/x", "b/x", "b/y"]
    assert short_names([Path("/o/lr=0.01"), Path("/o/lr=0.02")]) == ["lr=0.01", "lr=0.02"]
    assert short_names([Path("/o/x.json"), Path("/o/x.png")]) == ["/o/x.json", "/o/x.png"]
    assert short_names([Path("/e/k/results/s.json"), Path("/e/l/results/s.json")]) == ["k/s", "l/s"]
