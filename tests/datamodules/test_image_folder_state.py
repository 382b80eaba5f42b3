"""What a checkpoint says of an image folder: the training's mean and deviation, its classes, and the drawn parts."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import eval as evaluation
import train
from src.config.composition import compose_config
from src.datamodules.image_folder import ImageFolderDataModule
from src.runs.checkpoints import read_checkpoint
from src.runs.folder import RunFolder
from src.runs.summary import read_summary
from tests.resuming import resume

State = dict[str, Any]
SIDE = 8


def write(folder: Path, classes: dict[str, int], names: Iterable[object] = range(10)) -> Path:
    """Write images of one grey value for each class, a little different each."""
    for label, grey in classes.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for i, name in enumerate(names):
            Image.new("RGB", (SIDE, SIDE), (grey, grey, grey + i)).save(folder / label / f"{name}.png")
    return folder


def make(folder: Path, state: State | None = None, stage: str | None = "fit", **settings: Any) -> ImageFolderDataModule:
    defaults = {"size": SIDE, "num_classes": 2, "val_fraction": 0.2, "test_fraction": 0.2}
    datamodule = ImageFolderDataModule(str(folder), **{**defaults, **settings})
    if state is not None:
        datamodule.load_state_dict(state)
    datamodule.setup(stage)
    return datamodule


def rows(datamodule: ImageFolderDataModule, part: str) -> list[bytes]:
    """The images of a part in their order, which are different ones."""
    return [image.numpy().tobytes() for image in datamodule.sets[part].images]  # type: ignore[attr-defined]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "set", {"Malignant": 200, "benign": 100})


def test_an_evaluation_on_another_folder_has_mean_deviation_and_labels_of_the_training(
    folder: Path, tmp_path: Path
) -> None:
    trained = make(folder, values="standardised")
    other = write(tmp_path / "other" / "test", {"benign": 30, "Malignant": 40, "another": 50}).parent
    with pytest.raises(ValueError, match=r"classes of the training: Malignant, benign, as .*got Malignant, another, b"):
        make(other, trained.state_dict(), "test", values="standardised")
    shutil.rmtree(other / "test" / "another")
    shutil.rmtree(other / "test" / "Malignant")
    tested = make(other, trained.state_dict(), "test", values="standardised")
    assert (tested.MEAN, tested.STD, tested.class_names) == (trained.MEAN, trained.STD, ("Malignant", "benign"))
    assert list(tested.sets) == ["test"] and len(tested.sets["test"]) == 10  # type: ignore[arg-type]
    batch = next(iter(tested.test_dataloader()))
    assert batch["label"].tolist() == [1] * 10
    assert torch.allclose(batch["image"][:, 0], torch.tensor((30 / 255 - trained.MEAN[0]) / trained.STD[0]))


def test_labels_are_the_places_in_the_classes_of_the_training(folder: Path, tmp_path: Path) -> None:
    state = make(folder).state_dict()
    other = write(tmp_path / "other", {"benign": 100, "malignant": 200})
    with pytest.raises(ValueError, match="expected the classes of the training: Malignant, benign, as folders in"):
        make(other, state, "test")
    with pytest.raises(ValueError, match=r"expected the classes of the training: .* got no folder, only images"):
        make(other / "benign", state, "test")
    # Sorted, these would be 0 and 1 the other way round.
    state["class_names"] = ["malignant", "benign"]
    samples: Any = make(other, state, "test").sets["test"]
    expected = [0 if image[0, 0, 0] == 200 else 1 for image in samples.images]
    assert samples.labels.tolist() == expected and set(expected) == {0, 1}


def test_a_training_needs_all_of_its_classes(folder: Path) -> None:
    state = make(folder).state_dict()
    shutil.rmtree(folder / "benign")
    with pytest.raises(ValueError, match=r"expected the classes of the training: Malignant, benign, .* got Malignant$"):
        make(folder, state)


def test_a_class_may_have_the_name_of_a_part(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", {"test": 10, "control": 90})
    trained = make(folder)
    tested = make(folder, trained.state_dict(), "test")
    assert tested.class_names == ("control", "test") and rows(tested, "test") == rows(trained, "test")


def test_a_given_mean_stays(folder: Path) -> None:
    given = {"values": "standardised", "mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}
    datamodule = make(folder, make(folder).state_dict(), **given)
    assert datamodule.MEAN == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("values", ["unit", "integers"])
def test_drawn_parts_stay_and_new_images_train(folder: Path, values: str) -> None:
    trained = make(folder, values=values)
    write(folder, {"Malignant": 220, "benign": 120}, ["0_new", "9_new"])
    again = make(folder, trained.state_dict(), values=values)
    assert [rows(again, part) for part in ("val", "test")] == [rows(trained, part) for part in ("val", "test")]
    assert set(rows(again, "train")) > set(rows(trained, "train")) and len(rows(again, "train")) == 12 + 4
    drawn_anew = make(folder, values=values)
    assert set(rows(drawn_anew, "test")) & set(rows(trained, "train")), "the draw depends on the files"
    assert again.state_dict()["held_out"] == trained.state_dict()["held_out"]


def test_caps_take_the_same_images_again(folder: Path) -> None:
    caps = {"num_train": 5, "num_val": 2, "num_test": 2}
    with pytest.warns(UserWarning, match="Using 2 of the 4 images for test"):
        trained = make(folder, **caps)
        again = make(folder, trained.state_dict(), **caps)
        assert [rows(again, part) for part in again.sets] == [rows(trained, part) for part in trained.sets]
        write(folder, {"benign": 120}, ["0_new"])
        again = make(folder, trained.state_dict(), **caps)
    assert [rows(again, part) for part in ("val", "test")] == [rows(trained, part) for part in ("val", "test")]


def test_nothing_changed_gives_the_same_order(folder: Path) -> None:
    trained = make(folder)
    again = make(folder, trained.state_dict())
    assert [rows(again, part) for part in again.sets] == [rows(trained, part) for part in trained.sets]


def test_a_part_with_a_folder_is_not_drawn(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "parts" / "train")
    write(tmp_path / "parts" / "val", {"benign": 0, "Malignant": 50}, range(2))
    trained = make(tmp_path / "parts")
    kept = trained.state_dict()["held_out"]
    assert set(kept) == {"data_dir", "test"} and all(name.startswith("train/") for name in kept["test"])
    write(tmp_path / "parts" / "train", {"benign": 120}, ["0_new"])
    assert rows(make(tmp_path / "parts", trained.state_dict()), "test") == rows(trained, "test")


def test_images_that_are_gone_are_named_or_left_out(folder: Path) -> None:
    trained = make(folder)
    state = trained.state_dict()
    gone = state["held_out"]["test"][0]
    (folder / gone).unlink()
    with pytest.raises(ValueError, match=rf"got 1 that are gone: {gone}; put them back, .*skip_bad_images=true, or"):
        make(folder, state)
    with pytest.raises(ValueError, match=f"left for test, got 1 that are gone: {gone}"):
        make(folder, state, "test")
    make(folder, state, "validate")
    with pytest.warns(UserWarning, match=f"Leaving out 1 members that are gone from .*: {gone}"):
        again = make(folder, state, skip_bad_images=True)
    assert rows(again, "test") == rows(trained, "test")[1:]
    shutil.rmtree(folder / "benign")
    write(folder, {"benign": 100}, [f"renamed_{i}" for i in range(10)])
    with pytest.raises(ValueError, match=r"got 4 that are gone: .*png, .*png, .*png and 1 more;"):
        make(folder, state)


def test_the_parts_of_other_data_and_of_earlier_versions_are_drawn(folder: Path, tmp_path: Path) -> None:
    state = make(folder).state_dict()
    other = write(tmp_path / "other", {"benign": 100, "Malignant": 200}, [f"b{i}" for i in range(20)])
    assert len(make(other, state, "test").sets["test"]) == 8  # type: ignore[arg-type]
    del state["held_out"]
    assert rows(make(folder, state), "test") == rows(make(folder), "test")


def test_the_folder_is_the_same_by_another_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = make(folder)
    write(folder, {"benign": 120}, ["0_new"])
    monkeypatch.chdir(folder.parent)
    assert rows(make(Path(folder.name), trained.state_dict()), "test") == rows(trained, "test")


def test_a_state_that_comes_after_setup_changes_nothing(folder: Path) -> None:
    datamodule = make(folder, values="standardised")
    before = datamodule.state_dict()
    datamodule.load_state_dict({"MEAN": [0.0] * 3, "STD": [9.0] * 3, "class_names": ["x", "y"]})
    assert datamodule.state_dict() == before


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that was trained on such a folder for one epoch."""
    place = tmp_path_factory.mktemp("state")
    write(place / "set", {"Malignant": 200, "benign": 100})
    size = [f"image.size={SIDE}", "datamodule.values=standardised", "datamodule.batch_size=8", "model=convnet"]
    parts = ["datamodule.val_fraction=0.2", "datamodule.test_fraction=0.2", "network.convnet.width=4"]
    few = ["trainer.max_epochs=1", "callbacks.images.num_images=2", "callbacks.last.every_n_steps=1", "logger=csv"]
    where = [f"datamodule.data_dir={place / 'set'}", f"run_dir={place / 'run'}"]
    train.train(compose_config(["experiment=irevnet_lab", "datamodule=image_folder", *size, *parts, *few, *where]))
    return place / "run"


def test_eval_and_a_resumed_run_have_the_test_images_of_the_training(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = read_checkpoint(RunFolder(run).checkpoint("last"))["ImageFolderDataModule"]
    before = read_summary(RunFolder(run).summary)["metrics"]
    write(run.parent / "set", {"Malignant": 10, "benign": 90}, [f"{i}_new" for i in range(10)])
    summary = evaluation.evaluate(*evaluation.load([f"ckpt={run}", f"run_dir={tmp_path}"]))
    assert summary["metrics"]["test/loss"] == pytest.approx(before["test/loss"], rel=1e-6)
    resume(monkeypatch, f"resume={run}", "trainer.max_epochs=2")
    assert read_checkpoint(RunFolder(run).checkpoint("last"))["ImageFolderDataModule"] == state
