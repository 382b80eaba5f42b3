"""Names of files in a run folder, where a new one is made, and which folders are found."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from src.config.composition import compose_config
from src.runs.checkpoints import find_checkpoint
from src.runs.folder import (
    RUN_DIR_VARIABLE,
    SUBFOLDERS,
    RunFolder,
    check_is_free,
    choose_run_dir,
    picture_name,
    run_folder_of,
    run_folders,
)
from src.utils.errors import ConfigError


def test_run_folders_differ_and_other_processes_follow_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_DIR_VARIABLE, "")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    config = compose_config(["model=unet"])
    first, second = choose_run_dir(config), choose_run_dir(config)
    assert first != second
    assert Path(second).parent == Path("outputs/ct_postproc") and "-unet-" in Path(second).name
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_run_dir(config) == second
    assert not Path("outputs").joinpath(second).exists()


@pytest.mark.parametrize("experiment", ["ct_postproc", "iconvnet_table2", "brats"])
def test_configurations_write_where_readers_look(experiment: str) -> None:
    config = compose_config([f"experiment={experiment}", "run_dir=somewhere", "logger=csv"])
    run = RunFolder("somewhere")
    assert config.logger.csv.path == str(run.metrics)
    assert RunFolder(config.callbacks.last.run_dir).checkpoint() == run.checkpoint() == run.checkpoints / "last.ckpt"
    best = config.callbacks.best
    assert Path(best.dirpath, f"{best.filename}.ckpt") == run.checkpoint("best")
    assert Path(config.callbacks.curves.dirpath) == Path(config.callbacks.test_table.dirpath) == run.path
    pictures = [c.dirpath for c in config.callbacks.values() if "dirpath" in c and ".pictures." in c._target_]
    assert {str(run.images), str(run.path)} == set(pictures)


def test_pictures_of_one_name_are_a_series_over_the_epochs(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.images.mkdir()
    written = {("test-000", None), ("val-000", 0), ("val-000", 12_345), ("val-epoch-3", 7), ("val-epoch-x", None)}
    for name, epoch in written:
        Image.new("L", (1, 1)).save(run.images / picture_name(name, epoch))
    found = run.pictures()
    assert {(name, epoch) for name, series in found.items() for epoch in series} == written
    assert found["val-000"][0] == run.images / "val-000-epoch-0000.png"


def test_run_folders_are_found_without_those_inside_of_a_run(tmp_path: Path) -> None:
    for name in ("b", "a/first", "a/second", *(f"b/{name}/again" for name in SUBFOLDERS)):
        (tmp_path / name).mkdir(parents=True)
        RunFolder(tmp_path / name).config.touch()
    assert [run.path for run in run_folders(tmp_path)] == [tmp_path / name for name in ("a/first", "a/second", "b")]
    assert [run.path for run in run_folders(tmp_path / "b")] == [tmp_path / "b"]
    assert not RunFolder(tmp_path / "a").is_run()


def test_a_run_folder_means_its_checkpoint(tmp_path: Path) -> None:
    path = RunFolder(tmp_path / "run").checkpoint()
    path.parent.mkdir(parents=True)
    path.touch()
    assert find_checkpoint(tmp_path / "run") == path == find_checkpoint(path)
    assert run_folder_of(path) == tmp_path / "run" and run_folder_of(tmp_path / "copy.ckpt") == tmp_path
    assert find_checkpoint(tmp_path / "run", "best") == path  # of a run without a validation
    best = RunFolder(tmp_path / "run").checkpoint("best")
    best.touch()
    assert find_checkpoint(tmp_path / "run", "best") == best
    with pytest.raises(ValueError, match=r"checkpoints/best\.ckpt, got '.*other'"):
        find_checkpoint(tmp_path / "other", "best")


def test_a_folder_has_one_run(tmp_path: Path) -> None:
    tested, trained = RunFolder(tmp_path / "tested"), RunFolder(tmp_path / "trained")
    killed = RunFolder(tmp_path / "killed").checkpoint("best")  # before there was one to resume
    for path in (tested.summary, trained.checkpoint(), tmp_path / "begun" / "config.yaml", killed):
        path.parent.mkdir(parents=True)
        path.touch()
    with pytest.raises(
        ConfigError, match=r"expected a new folder, got run_dir=\S*tested, which has a run; for a new run"
    ):
        check_is_free(str(tested.path))
    with pytest.raises(
        ConfigError, match=r"which has a run; python train.py resume=\S*trained continues it; for a new"
    ):
        check_is_free(str(trained.path))
    with pytest.raises(ConfigError, match="which has a run"):
        check_is_free(str(tested.path), str(trained.checkpoint()))
    check_is_free(str(trained.path), str(trained.checkpoint("best")))
    for name in ("begun", "killed", "new"):
        check_is_free(str(tmp_path / name), str(trained.checkpoint()))
        check_is_free(str(tmp_path / name))
