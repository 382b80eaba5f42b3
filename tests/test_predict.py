"""predict.py on real NIfTI files of a few voxels."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

import predict as prediction
import train
from src.config.composition import compose_config
from src.tasks.segmentation_heads import region_masks
from src.tasks.segmentation_metrics import dice
from src.utils.errors import ConfigError
from tests.fake_segmentation import AFFINE, REGIONS, Linear, TinyCases, nested_case, segmentation_overrides, write_scan
from tests.fakes import tiny_overrides

# A scan larger than a window of 16, one smaller, and one without enhancing tumour.
SHAPES = {"a": (21, 16, 30), "b": (12, 16, 13), "e": (18, 17, 16)}
SEEDS = {"a": 0, "b": 1, "e": 4}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    config = compose_config(segmentation_overrides(folder, "trainer.max_epochs=1", "task.optimizer.lr=1e-6"))
    # The network is good from the start, so that a wrong axis or class would show.
    config.model = {"_target_": "tests.fake_segmentation.Linear"}
    train.train(config)
    return folder


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for name, shape in SHAPES.items():
        write_scan(folder, name, SEEDS[name], shape)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["predict.py", *arguments])
    prediction.main()


def values(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]


def test_label_maps_have_the_scans_affine_and_shape_and_the_releases_labels(
    finished: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, f"ckpt={finished}", f"output={tmp_path}", f"datamodule.predict_dir={scans}")
    assert sorted(path.name for path in tmp_path.glob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz", "e.nii.gz"]
    assert (tmp_path / "images" / "predict-overlays.png").is_file()
    for name, shape in SHAPES.items():
        image = nibabel.load(tmp_path / f"{name}.nii.gz")
        assert image.shape == shape and np.array_equal(image.affine, AFFINE)  # type: ignore[attr-defined]
        found = values(tmp_path / f"{name}.nii.gz")
        assert set(np.unique(found)) <= set(TinyCases.label_values)
        volume, label = nested_case(SEEDS[name], shape)
        with torch.no_grad():
            expected = Linear()(volume[None]).argmax(dim=1)[0]
        classes = torch.from_numpy(np.searchsorted(TinyCases.label_values, found))
        # The written label map was blended from windows, so the last digits of a logit may differ.
        assert (classes != expected).float().mean() < 1e-3
        scores = dice(region_masks(classes[None], REGIONS), region_masks(label[None], REGIONS))
        assert scores.min() > 0.9 or name == "e"


def test_a_prediction_resumes_with_the_missing_cases_and_overwrites_on_request(
    finished: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    arguments = [f"ckpt={finished}", f"output={tmp_path}", f"datamodule.predict_dir={scans}"]
    run(monkeypatch, *arguments)
    first, second = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    before = first.stat().st_mtime_ns
    second.unlink()
    run(monkeypatch, *arguments)
    assert second.is_file() and first.stat().st_mtime_ns == before
    output = capsys.readouterr().out
    assert f"{tmp_path} already has 2 of 3 cases" in output and "1 label maps written" in output
    run(monkeypatch, *arguments)
    assert "0 label maps written" in capsys.readouterr().out
    run(monkeypatch, *arguments, "overwrite=true")
    assert "3 label maps written" in capsys.readouterr().out and first.stat().st_mtime_ns > before


def interrupted(*arguments: Any) -> None:
    raise OSError("interrupted")


def test_label_maps_of_another_run_are_not_mixed_silently(
    finished: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    arguments = [f"output={tmp_path}", f"datamodule.predict_dir={scans}"]
    run(monkeypatch, f"ckpt={finished}", *arguments)
    other = f"ckpt={finished / 'checkpoints' / 'last.ckpt'}"
    for changed, message in (
        (other, "best.ckpt'; overwrite=true"),
        ("task.overlap=0.5", "got label maps with overlap 0.25"),
    ):
        source = [changed] if changed == other else [f"ckpt={finished}", changed]
        with pytest.raises(SystemExit) as stopped:
            run(monkeypatch, *source, *arguments)
        assert stopped.value.code == 2 and message in capsys.readouterr().err
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(TinyCases, "save_prediction", interrupted)
        run(monkeypatch, other, *arguments, "overwrite=true")
    assert not list(tmp_path.glob("*.nii.gz"))  # none of the former checkpoint under the new one's name
    run(monkeypatch, other, *arguments, "overwrite=true")
    assert json.loads((tmp_path / "predictions.json").read_text())["checkpoint"].endswith("last.ckpt")
    (tmp_path / "predictions.json").unlink()
    with pytest.raises(SystemExit):
        run(monkeypatch, other, *arguments)
    assert "got label maps with checkpoint None" in capsys.readouterr().err


def test_missing_scans_are_named(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, f"ckpt={finished}", f"output={tmp_path}", "datamodule.predict_dir=/nowhere")
    assert stopped.value.code == 2
    assert "expected datamodule.predict_dir to be a folder of scans, got '/nowhere'" in capsys.readouterr().err
    assert not (tmp_path / "predictions.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["output=x"], "expected one ckpt=<run folder or checkpoint>, got 0"),
        (["ckpt={run}"], "expected one output=<folder>, got 0"),
        (["ckpt={run}", "output=x", "overwrite=maybe"], "expected overwrite=true or overwrite=false, got"),
        (["ckpt={run}", "output=x", "datamodule.predict_dri=y"], "did you mean 'datamodule.predict_dir'"),
        (["ckpt={run}", "output={run}"], "expected a folder for the results alone, got output=.*finished, whose run"),
        (["ckpt=/nowhere", "output=x"], "expected a checkpoint or a run folder"),
    ],
)
def test_wrong_arguments_are_named(finished: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prediction.load([argument.format(run=finished) for argument in arguments])


def test_a_run_that_reads_no_cases_needs_an_input(tmp_path: Path) -> None:
    train.train(compose_config(tiny_overrides(tmp_path / "run", "trainer.max_epochs=1")))
    with pytest.raises(ConfigError, match="expected input=<image file or folder>, or mode=sample for a flow, got none"):
        prediction.load([f"ckpt={tmp_path / 'run'}", f"output={tmp_path / 'out'}"])


def test_an_input_is_a_folder_of_cases(finished: Path, scans: Path, tmp_path: Path) -> None:
    arguments = [f"ckpt={finished}", f"output={tmp_path}", f"input={scans}"]
    assert prediction.predict(*prediction.load(arguments)) == len(SHAPES)
    with pytest.raises(ConfigError, match="expected mode=encode for a flow, got a run of a segmentation"):
        prediction.load([*arguments, "mode=encode"])


def test_help_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    run(monkeypatch, "--help")
    assert "output=<folder>" in capsys.readouterr().out
