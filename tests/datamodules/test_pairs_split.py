"""The parts of a set of pairs: those of folders and manifests, and drawn ones, which a checkpoint keeps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from src.datamodules.pairs import PairsDataModule
from tests.pair_files import write_pair

State = dict[str, Any]
PARTS = ("train", "val", "test")


def split(folder: Path, state: State | None = None, **settings: Any) -> tuple[dict[str, list[str]], State]:
    """Return the names in each part, and the state for a checkpoint."""
    defaults = {"size": 8, "cache_dir": str(folder.parent / "cache"), "preprocessing_workers": 0}
    datamodule = PairsDataModule(**{"data_dir": str(folder), "val_fraction": 0.2, **defaults, **settings})
    if state is not None:
        datamodule.load_state_dict(state)
    datamodule.prepare_data()
    datamodule.setup("fit")
    datamodule.load_state_dict({"held_out": {"data_dir": str(folder), "val": ["other"], "test": ["other"]}})  # too late
    names = {part: [cached.case.name for cached in pairs] for part, pairs in datamodule.cases.items()}
    return names, datamodule.state_dict()


def write(folder: Path, *names: str) -> Path:
    for name in names:
        place, _, file = name.rpartition("/")
        write_pair(folder / place, f"{file}.npy", (12, 12, 12))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "data", *(f"p{i}" for i in range(10)))


@pytest.mark.parametrize("test_fraction", [0.2, 0])
def test_drawn_parts_stay_and_new_pairs_train(test_fraction: float, folder: Path) -> None:
    first, state = split(folder, test_fraction=test_fraction)
    assert state == {"held_out": {"data_dir": folder.as_posix(), "val": first["val"], "test": first["test"]}}
    assert split(folder, state, test_fraction=test_fraction) == (first, state)
    write(folder, "a_new", "p5_new")
    again, _ = split(folder, state, test_fraction=test_fraction)
    assert again == {**first, "train": sorted([*first["train"], "a_new", "p5_new"])}
    anew, _ = split(folder, test_fraction=test_fraction)
    assert set(anew["test"]) & set(first["train"]), "the draw depends on the files"


def test_a_copy_of_the_training_s_data_is_split_as_they_were_and_other_data_anew(folder: Path, tmp_path: Path) -> None:
    first, state = split(folder, test_fraction=0.2)
    copied = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "data"))
    write(copied, "a_new", "p5_new")
    again, _ = split(copied, state, test_fraction=0.2)
    assert again == {**first, "train": sorted([*first["train"], "a_new", "p5_new"])}
    others = write(tmp_path / "others", *(f"q{i}" for i in range(10)))
    assert split(others, state, test_fraction=0.2) == split(others, test_fraction=0.2)


def test_a_new_pair_of_a_held_out_patient_is_held_out(folder: Path) -> None:
    group = "(p[0-9])"
    first, state = split(folder, test_fraction=0.2, group=group)
    more = {part: f"{first[part][0]}_new" for part in PARTS}
    write(folder, *more.values())
    again, _ = split(folder, state, test_fraction=0.2, group=group)
    assert again == {part: sorted([*first[part], more[part]]) for part in PARTS}


def test_pairs_that_are_gone_are_named_or_left_out(folder: Path) -> None:
    first, state = split(folder, test_fraction=0.2)
    gone = first["test"][1]
    for side in ("input", "target"):
        (folder / side / f"{gone}.npy").unlink()
    with pytest.raises(ValueError, match=rf"left for val and test, got 1 that are gone: {gone}; put .*skip_bad_cases"):
        split(folder, state, test_fraction=0.2)
    with pytest.warns(UserWarning, match=f"Leaving out 1 members that are gone from .*data: {gone}"):
        again, _ = split(folder, state, test_fraction=0.2, skip_bad_cases=True)
    assert again == {**first, "test": first["test"][:1]}


def test_a_bad_pair_stays_in_its_part(folder: Path) -> None:
    first, state = split(folder, test_fraction=0.2)
    bad = first["test"][0]
    (folder / "target" / f"{bad}.npy").unlink()
    with pytest.warns(UserWarning, match="Skipping 1 bad pairs"):
        again, kept = split(folder, state, test_fraction=0.2, skip_bad_cases=True)
    assert again == {**first, "test": first["test"][1:]} and kept == state


def test_the_parts_of_other_data_and_of_earlier_versions_are_drawn(folder: Path, tmp_path: Path) -> None:
    first, state = split(folder)
    other = write(tmp_path / "other", *(f"q{i}" for i in range(10)))
    drawn, _ = split(other, state)
    assert [len(drawn[part]) for part in PARTS] == [len(first[part]) for part in PARTS]
    assert split(folder, {})[0] == first


def test_a_manifest_keeps_its_parts_too(folder: Path) -> None:
    manifest = folder / "pairs.csv"
    lines = ["input,target", *(f"input/p{i}.npy,target/p{i}.npy" for i in range(9))]
    manifest.write_text("\n".join(lines))
    first, state = split(folder, manifest=str(manifest))
    manifest.write_text("\n".join([*lines, "input/p9.npy,target/p9.npy"]))
    again, _ = split(folder, state, manifest=str(manifest))
    assert again == {**first, "train": [*first["train"], "input/p9"]}


def test_validation_pairs_are_drawn_from_those_of_the_training(folder: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    shutil.copytree(folder, parts / "train")
    train_only, _ = split(parts, test_fraction=0.2)
    assert [len(train_only[part]) for part in PARTS] == [6, 2, 2]
    write(parts, "test/a", "test/b")
    first, state = split(parts)
    assert [len(first[part]) for part in PARTS] == [8, 2, 2] and first["test"] == ["test/a", "test/b"]
    assert sorted(first["train"] + first["val"]) == [f"train/p{i}" for i in range(10)]
    write(parts, "train/a_new", "test/c")
    again, _ = split(parts, state)
    assert (again["val"], again["test"]) == (first["val"], ["test/a", "test/b", "test/c"])
    assert again["train"] == ["train/a_new", *first["train"]]
    lines = [f"input/p{i}.npy,target/p{i}.npy,{'test' if i > 7 else 'train'}" for i in range(10)]
    (folder / "pairs.csv").write_text("\n".join(["input,target,split", *lines]))
    by_column, _ = split(folder, manifest=str(folder / "pairs.csv"))
    assert by_column["test"] == ["input/p8", "input/p9"]
    assert [len(by_column[part]) for part in PARTS] == [6, 2, 2] and not {*by_column["train"]} & {*by_column["val"]}


def test_parts_without_pairs_say_where_some_are_needed(folder: Path, tmp_path: Path) -> None:
    manifest = folder / "pairs.csv"
    manifest.write_text("input,target,split\ninput/p0.npy,target/p0.npy,test\ninput/p1.npy,target/p1.npy,val\n")
    with pytest.raises(ValueError, match=r"usable pairs for train in .*, got none; the column split needs some"):
        split(folder, manifest=str(manifest))
    manifest.write_text("input,target,split\ninput/p0.npy,target/p0.npy,test\n")
    with pytest.raises(ValueError, match=r"usable pairs for train in .*, got none; the column split needs some"):
        split(folder, manifest=str(manifest))
    parts = write(tmp_path / "parts", *(f"{part}/a" for part in PARTS))
    write_pair(parts / "test", "a.npy", (12, 12, 5))
    with (
        pytest.warns(UserWarning, match="Skipping 1 bad pairs"),
        pytest.raises(ValueError, match=r"usable pairs for test in .*, got none; the folder test needs some"),
    ):
        split(parts, skip_bad_cases=True)
    few = write(tmp_path / "few", "a", "b", "c")
    for side in ("input", "target"):
        (few / side / "b.npy").unlink()
        (few / side / "b.npy").symlink_to("nowhere.npy")
    with (
        pytest.warns(UserWarning, match="Skipping 1 bad pairs"),
        pytest.raises(ValueError, match=r"got none; other fractions or another datamodule\.seed give some"),
    ):
        split(few, skip_bad_cases=True)
