"""The note of a folder of predictions: which files have which origin."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader

from src.callbacks.prediction_writer import label_maps, only_missing
from src.runs.predictions.folder import PredictionFolder


def written(folder: Path, network: str, *names: str) -> None:
    """Predict files of these names, all of them again."""
    files = [folder / name for name in names]
    PredictionFolder(folder, {"checkpoint": network}, "images").begin(files)
    for path in files:
        assert not path.exists() or note(folder)["checkpoint"] == network
        path.write_text(network)


def note(folder: Path) -> dict:
    return json.loads((folder / "predictions.json").read_text())


def test_files_of_one_origin_are_listed_together(tmp_path: Path) -> None:
    written(tmp_path, "first", "b", "a")
    written(tmp_path, "first", "c", "b")
    assert note(tmp_path) == {"checkpoint": "first", "files": ["a", "b", "c"]}


def test_files_of_another_origin_are_all_replaced_or_none(tmp_path: Path) -> None:
    written(tmp_path, "first", "a", "b")
    before = note(tmp_path)
    with pytest.raises(ValueError, match=r"to have no images of another origin besides those .*, got 1, such as .*a;"):
        written(tmp_path, "second", "b", "c")
    assert note(tmp_path) == before and (tmp_path / "b").read_text() == "first"
    written(tmp_path, "second", "a", "b", "c")
    assert note(tmp_path) == {"checkpoint": "second", "files": ["a", "b", "c"]}
    (tmp_path / "a").unlink()
    written(tmp_path, "third", "b", "c")
    assert note(tmp_path)["files"] == ["b", "c"]


def test_the_label_maps_of_a_continued_prediction_are_those_of_its_missing_cases(tmp_path: Path) -> None:
    def name(split: str, index: int) -> str:
        return "xyz"[index]

    (tmp_path / "x.nii.gz").touch()
    loader = only_missing(DataLoader([0, 1, 2]), name, tmp_path)  # type: ignore[arg-type]
    datamodule = SimpleNamespace(predict_dataloader=lambda: loader, case_name=name)
    found = [path.name for path in label_maps(tmp_path, datamodule)]
    assert found == ["y.nii.gz", "y.nii", "z.nii.gz", "z.nii"]
