"""Pairs from files to batches: which files belong together, the split, the crops, and every problem in one message."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from src.datamodules.pairs import PairsDataModule
from src.datamodules.pairs.crops import random_crop
from src.datamodules.pairs.demo import SHAPES, write_demo
from src.datamodules.pairs.pairing import find_pairs, read_manifest
from src.utils.reading import FileError
from tests.pair_files import AFFINE, write_image, write_pair


def module(folder: Path, **settings: Any) -> PairsDataModule:
    defaults = {"size": 8, "cache_dir": str(folder.parent / "cache"), "preprocessing_workers": 0, "augment": False}
    return PairsDataModule(**{"data_dir": str(folder), **defaults, **settings})


def ready(folder: Path, **settings: Any) -> PairsDataModule:
    datamodule = module(folder, **settings)
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def all_names(datamodule: PairsDataModule) -> list[str]:
    return sorted(cached.case.name for pairs in datamodule.cases.values() for cached in pairs)


def names(datamodule: PairsDataModule) -> dict[str, list[str]]:
    return {part: [cached.case.name for cached in pairs] for part, pairs in datamodule.cases.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pairs of different sizes."""
    for index in range(6):
        write_pair(tmp_path / "data", f"p{index}.npy", (12 + index, 13, 14))
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("inputs", "targets", "files", "expected"),
    [
        ("input/*", "target/*", ["input/b.npy", "target/b.png", "input/x/a.nii.gz", "target/x/a.nii"], ["b", "x/a"]),
        ("*_noisy.npy", "*_clean.npy", ["1_noisy.npy", "1_clean.npy", "2_noisy.npy", "2_clean.npy"], ["1", "2"]),
        ("*_noisy", "*_clean", ["1_noisy.npy", "1_clean.tif"], ["1"]),
        ("*/low.nii.gz", "*/full.nii.gz", ["s1/low.nii.gz", "s1/full.nii.gz", "s1/other.nii.gz"], ["s1"]),
        ("*.h5", "*.h5", ["a.h5", "b.h5", "readme.txt", "._a.h5", "__MACOSX/a.h5", ".cache/a.h5"], ["a", "b"]),
    ],
)
def test_patterns_find_partners(
    inputs: str, targets: str, files: list[str], expected: list[str], tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    pairs, problems = find_pairs(tmp_path, inputs, targets)
    assert problems == [] and [pair.name for pair in pairs] == expected
    assert all(pair.input.is_file() and pair.target.is_file() for pair in pairs)


def test_a_manifest_names_the_pairs(folder: Path) -> None:
    path = folder / "pairs.csv"
    path.write_text(
        "input,target,name,split\ninput/p0.npy,target/p1.npy,one,train\ninput/p2.npy,target/p2.npy,two,val\n"
    )
    pairs, problems = read_manifest(path)
    assert problems == []
    assert [(p.name, p.input.name, p.target.name, p.part) for p in pairs] == [
        ("one", "p0.npy", "p1.npy", "train"),
        ("two", "p2.npy", "p2.npy", "val"),
    ]
    path.write_text("input,target\ninput/p0.npy,target/p0.npy\ninput/no.npy,\ninput/p0.npy,target/p1.npy\n")
    pairs, problems = read_manifest(path)
    assert [pair.name for pair in pairs] == []
    texts = [f"{problem.file}: {problem.message}" for problem in problems]
    assert "input/no.npy: expected a file as input in line 3 of pairs.csv, got none" in texts
    assert "line 3: expected a file as target in line 3 of pairs.csv, got none" in texts
    assert "pairs.csv: expected one line for input/p0, got 2; give a column name" in texts
    path.write_text("input,target\ninput,target/p0.npy\n")
    assert "expected a file as input in line 2 of pairs.csv, got a folder" in read_manifest(path)[1][0].message
    path.write_text("input,target,split\ninput/p0.npy,target/p0.npy,validation\n")
    assert "expected split as one of train, val, test in line 2, got 'validation'" in read_manifest(path)[1][0].message


@pytest.mark.parametrize("content", [None, "", "input,output\n", "input,target\n", "\0\xff"])
def test_no_manifest(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "pairs.csv").write_text(content)
    with pytest.raises(FileError, match=r"expected a CSV file with the columns input, target.*pairs\.csv"):
        read_manifest(tmp_path / "pairs.csv")


def test_whole_images_are_those_of_the_files_in_their_windows(folder: Path) -> None:
    datamodule = ready(folder, window=[0, 2], target_window=[0, 4])
    for cached, batch in zip(datamodule.cases["val"], datamodule.val_dataloader(), strict=True):
        for side, high in (("input", 2), ("target", 4)):
            expected = np.load(folder / side / f"{cached.case.name}.npy") / high
            np.testing.assert_array_equal(batch[side][0, 0], expected.astype(np.float32))
    own = ready(folder)
    image = np.load(folder / "input" / f"{names(own)['test'][0]}.npy")
    low, high = np.percentile(image, (0.5, 99.5))
    batch = next(iter(own.test_dataloader()))
    np.testing.assert_allclose(batch["input"][0, 0], (image - low) / (high - low), rtol=1e-5, atol=1e-6)
    assert own.case_name("test", batch["index"][0]) == names(own)["test"][0]


def test_crops_are_parts_of_both_images_at_one_place(folder: Path) -> None:
    datamodule = ready(folder, window=[0, 1], crops_per_pair=3, batch_size=2)
    batches = list(datamodule.train_dataloader())
    assert len(batches) == 6 and batches[0]["input"].shape == (2, 1, 8, 8, 8)
    for batch in batches:
        for input, target, index in zip(batch["input"], batch["target"], batch["index"], strict=True):
            name = datamodule.case_name("train", index)
            image, truth = (np.load(folder / side / f"{name}.npy") for side in ("input", "target"))
            places = np.argwhere(truth == target[0, 0, 0, 0].item())
            assert any(
                np.array_equal(image[part], input[0]) and np.array_equal(truth[part], target[0])
                for part in (tuple(slice(p, p + 8) for p in place) for place in places)
            )


def test_a_small_image_lies_between_zeros_at_any_place() -> None:
    torch.manual_seed(0)
    images = np.ones((2, 3, 6), np.float32)
    crops = [random_crop(images, (5, 4)) for _ in range(60)]
    assert all(crop.shape == (2, 5, 4) and crop.sum() == 2 * 3 * 4 for crop in crops)
    assert {int(crop[0, :, 0].argmax()) for crop in crops} == {0, 1, 2}


def test_flips_are_the_same_for_both_images(folder: Path) -> None:
    datamodule = ready(folder, window=[0, 1], augment=True, crops_per_pair=20, size=[12, 13, 14], val_fraction=0.34)
    found = set()
    for batch in datamodule.train_dataloader():
        name = datamodule.case_name("train", batch["index"][0])
        if name != "p0":  # the one whose crop is the whole
            continue
        truth = np.load(folder / "target/p0.npy")
        image = np.load(folder / "input/p0.npy")
        for code in range(8):
            axes = [axis for axis in range(3) if code >> axis & 1]
            if np.array_equal(np.flip(truth, axes), batch["target"][0, 0]):
                assert np.array_equal(np.flip(image, axes), batch["input"][0, 0])
                found.add(code)
    assert len(found) >= 6 or "p0" not in names(datamodule)["train"]


def test_the_split_is_by_fraction_by_file_or_by_folder(folder: Path, tmp_path: Path) -> None:
    drawn = names(ready(folder, val_fraction=0.34, test_fraction=0.17))
    assert [len(drawn[part]) for part in ("train", "val", "test")] == [3, 2, 1]
    assert all_names(ready(folder, val_fraction=0.34, test_fraction=0.17)) == [f"p{i}" for i in range(6)]
    assert drawn == names(ready(folder, val_fraction=0.34, test_fraction=0.17)) and drawn != names(
        ready(folder, val_fraction=0.34, test_fraction=0.17, seed=1)
    )
    split = {"train": ["p5", "p0"], "val": ["p1"], "test": ["p2"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    with pytest.warns(UserWarning, match=r"2 pairs are in no part of .*split\.json and are not used: p3, p4$"):
        assert names(ready(folder, split_file=str(tmp_path / "split.json"))) == {**split, "train": ["p0", "p5"]}
    for part in ("train", "val"):
        write_pair(tmp_path / "parts" / part, "a.npy")
    expected = {"train": ["train/a"], "val": ["val/a"], "test": ["val/a"]}
    assert names(ready(tmp_path / "parts")) == expected


def test_the_pairs_of_a_patient_stay_together(tmp_path: Path) -> None:
    for patient in range(4):
        for scan in range(2):
            write_pair(tmp_path / "data", f"p{patient}_{scan}.npy")
    drawn = names(ready(tmp_path / "data", group="(.+)_[0-9]+"))
    assert [len(drawn[part]) for part in ("train", "val", "test")] == [4, 2, 2]
    assert all(len({name[:2] for name in part}) == len(part) / 2 for part in drawn.values())
    with pytest.raises(ValueError, match="the group in the name of each case, got nothing in p0_0, p0_1, p1_0"):
        ready(tmp_path / "data", group="(.+)-")
    with pytest.raises(ValueError, match=r"datamodule\.group as a regular expression"):
        module(tmp_path / "data", group="(")


def test_a_split_that_divides_a_patient_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    for scan in ("a_0", "a_1", "b_0", "b_1"):
        write_pair(tmp_path / "data", f"{scan}.npy")
        write_pair(tmp_path / "parts" / ("train" if scan.endswith("0") else "val"), f"{scan}.npy")
    path.write_text(json.dumps({"train": ["a_0", "b_0", "b_1"], "val": ["a_1"], "test": ["a_1"]}))
    with pytest.warns(UserWarning) as caught:
        ready(tmp_path / "data", group="(.+)_", split_file=str(path))
    [message] = [str(w.message) for w in caught if "scores are too good" in str(w.message)]  # once
    assert (
        message.startswith("1 groups of cases") and f"val or test of {path}, and the scores are too good: a." in message
    )
    with pytest.warns(UserWarning, match=r"2 groups of cases.* of .*parts, and the scores are too good: a, b\."):
        ready(tmp_path / "parts", group="(.+)_")


def spoil(folder: Path) -> Iterator[tuple[str, str]]:
    """Add pairs with one problem each, and yield each one's file and message."""
    shape = (14, 13, 12)
    image = np.random.default_rng(0).random(shape, np.float32)
    write_image(folder / "input/a_alone.npy", image)
    yield "a_alone.npy", r"expected a partner that matches 'target/\*' in .*data, got none"
    write_pair(folder, "b_shape.npy", target=image[:-1])
    yield (
        "b_shape.npy",
        r"expected the spatial shape \(14, 13, 12\) of input/b_shape\.npy, got \(13, 13, 12\)",
    )
    write_pair(folder, "c_nan.npy", target=np.where(image > 0.5, np.nan, image))
    yield "c_nan.npy", r"expected finite values, got \d+ infinite or NaN values"
    write_pair(folder, "d_small.npy", (14, 7, 12))
    yield "d_small.npy", r"expected a size of at least \(8, 8, 8\), got \(14, 7, 12\); a smaller datamodule\.size, or"
    write_pair(folder, "e_type.npy", input=image.astype(complex))
    yield "e_type.npy", "expected integers or floating-point numbers, got complex128"
    write_pair(folder, "f_twice.npy")
    write_image(folder / "input/f_twice.tif", image)
    yield "f_twice.tif", r"expected one file of this name, got input/f_twice\.npy as well"
    write_pair(folder, "g_grid.nii")
    write_image(folder / "target/g_grid.nii", image, AFFINE @ np.diag([2, 1, 1, 1]))
    yield "g_grid.nii", r"expected the spacing \[1\.5, 2\.0, 3\.0\] mm of input/g_grid\.nii, got \[3\.0, 2\.0, 3\.0\]"
    write_pair(folder, "h_flat.npy", input=np.ones(shape))
    yield "h_flat.npy", r"expected values that differ, got 1 for the percentiles \[0\.5, 99\.5\]"
    write_pair(folder, "i_cut.nii.gz")
    path = folder / "target/i_cut.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    yield "i_cut.nii.gz", r"expected a whole NIfTI file"
    write_pair(folder, "j_link.npy")
    (folder / "input/j_link.npy").rename(folder / "elsewhere.npy")
    (folder / "input/j_link.npy").symlink_to("nowhere.npy")
    yield "j_link.npy", "expected a file, got a broken link"


def test_names_alone_are_listed_of_files_with_the_problem_of_three_others(folder: Path) -> None:
    with pytest.raises(ValueError, match="got 6 that are incomplete") as error:
        module(folder, channels=2, target_channels=1).prepare_data()
    _, *lines = str(error.value).splitlines()
    for index, line in enumerate(lines[:3]):
        assert line.startswith(f"  p{index}: input/p{index}.npy: expected 2 channels (datamodule.channels)")
        assert line.endswith(f"got 1 channels in shape ({12 + index}, 13, 14) (datamodule.channel_axis=auto)")
    more = ", ".join(f"p{index}: input/p{index}.npy" for index in (3, 4, 5))
    assert lines[3:] == [f"  3 more like p0: input/p0.npy: {more}"]


def test_all_problems_are_listed_together_and_can_be_skipped(folder: Path) -> None:
    expected = list(spoil(folder))
    with pytest.raises(ValueError, match=r"got 10 that are incomplete or invalid\. .*skip_bad_cases=true") as error:
        module(folder).prepare_data()
    text = str(error.value)
    for file, message in expected:
        pattern = rf"  {file.partition('.')[0]}: (input|target)/{re.escape(file)}: .*({message})"
        assert re.search(pattern, text), (pattern, text)
    assert len(text.splitlines()) == 1 + len(expected)
    with pytest.warns(UserWarning, match="Skipping 10 bad pairs"):
        datamodule = ready(folder, skip_bad_cases=True, val_fraction=0.4, test_fraction=0.4)
    assert all_names(datamodule) == [f"p{index}" for index in range(6)]


def test_small_images_are_padded_on_request(folder: Path) -> None:
    datamodule = ready(folder, size=20, pad=True)
    assert next(iter(datamodule.train_dataloader()))["input"].shape == (1, 1, 20, 20, 20)
    assert next(iter(datamodule.val_dataloader()))["input"].shape[3:] == (13, 14)
    write_pair(folder, "thin.npy", (20, 20, 5))
    with pytest.raises(ValueError, match=r"thin\.npy: expected a size of at least \(11, 11, 11\), got \(20, 20, 5\)"):
        module(folder, size=20, pad=True).prepare_data()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, r"data_dir to be a folder of images, got .*, which does not exist.*pairs\.demo"),
        (lambda path: path.touch(), "which is no folder"),
        (lambda path: path.mkdir(), r"expected image files \(.*\) that match 'input/\*' in .*, got none"),
        (lambda path: write_image(path / "input/a.npy", np.zeros(3)), r"that match 'target/\*' in .*, got none"),
        (lambda path: write_pair(path, "a.npy"), r"expected more than 2 labelled cases"),
    ],
)
def test_folders_without_data(make: Any, message: str, tmp_path: Path) -> None:
    make(tmp_path / "data")
    with pytest.raises(ValueError, match=message):
        module(tmp_path / "data").prepare_data()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims from 2 to 3"),
        ({"size": [8, 8]}, "size as one or 3 positive numbers"),
        ({"size": 0}, "size as one or 3 positive numbers"),
        ({"inputs": "input"}, r"inputs as a path with one \*"),
        ({"targets": "*/*"}, r"targets as a path with one \*"),
        ({"window": [1, 1]}, "window as two growing numbers"),
        ({"target_window": [0, float("nan")]}, "target_window as two growing numbers"),
        ({"percentiles": [5, 101]}, "percentiles as two growing numbers"),
        ({"channel_axis": "middle"}, "channel_axis as one of auto, first, last"),
        ({"crops_per_pair": 0}, "crops_per_pair"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        module(tmp_path, **settings)


def test_a_changed_or_damaged_file_is_read_again(folder: Path) -> None:
    settings: dict[str, Any] = {"window": [0, 1], "split_file": str(folder.parent / "split.json")}
    Path(settings["split_file"]).write_text(json.dumps({"train": ["p0"], "val": ["p1"], "test": ["p2"]}))
    first = ready(folder, **settings)
    [array] = first.cases["val"][0].folder.glob("p1.*.npy")
    made = array.stat().st_mtime_ns
    ready(folder, **settings)
    assert array.stat().st_mtime_ns == made, "made once"
    write_pair(folder, "p1.npy", (20, 13, 14))
    assert next(iter(ready(folder, **settings).val_dataloader()))["input"].shape == (1, 1, 20, 13, 14)
    array.write_bytes(array.read_bytes()[:-50])
    with pytest.warns(UserWarning, match="Replacing a damaged file"):
        assert next(iter(ready(folder, **settings).val_dataloader()))["input"].shape == (1, 1, 20, 13, 14)


def test_files_that_differ_in_a_folder_above_alone_are_told_apart(tmp_path: Path) -> None:
    for number, kind in enumerate(("clean", "weak", "strong")):
        (tmp_path / "data" / kind / "scan").mkdir(parents=True)
        for index in range(6):
            np.save(tmp_path / "data" / kind / "scan" / f"p{index}.npy", np.full((12, 13, 14), number, np.float32))
    for number, kind in ((1, "weak"), (2, "strong")):
        patterns = {"inputs": f"{kind}/scan/*", "targets": "clean/scan/*"}
        pairs = ready(tmp_path / "data", window=[0, 4], **patterns).cases["train"]
        assert all((pair.array("images")[0] == number / 4).all() for pair in pairs)


def test_the_demo_is_six_volumes_of_odd_and_different_sizes(tmp_path: Path) -> None:
    write_demo(tmp_path / "data")
    images = [nib.load(path) for path in sorted(tmp_path.glob("data/*/*.nii.gz"))]
    assert [image.shape for image in images] == [*SHAPES, *SHAPES] and len(set(SHAPES)) == 6
    assert all(side % 2 for shape in SHAPES for side in shape)
    datamodule = ready(tmp_path / "data", size=32)
    assert {part: len(pairs) for part, pairs in datamodule.cases.items()} == {"train": 4, "val": 1, "test": 1}


@pytest.mark.parametrize(
    ("windows", "name"),
    [
        ({}, "a.png"),
        ({"window": [0, 255]}, "a.png"),
        ({"window": [0, 255], "target_window": [0, 255]}, "a.png"),
        ({"window": [10, 4000], "target_window": [10, 4000]}, "a.png"),
        ({"target_window": [0, 255]}, "a.png"),
        ({"window": [0, 255], "target_window": [0, 1]}, "a.tif"),
        ({"target_window": [0, 65535]}, "a.tif"),
    ],
)
def test_pictures_are_restored_as_pictures_where_they_hold_the_targets(windows: dict[str, Any], name: str) -> None:
    datamodule = PairsDataModule(spatial_dims=2, size=8, **windows)
    assert datamodule.prediction_name("a.png") == datamodule.prediction_name("a.jpg") == name
    assert datamodule.prediction_name("b.nii.gz") == "b.nii.gz"
