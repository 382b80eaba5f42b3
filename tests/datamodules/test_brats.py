import json
import multiprocessing
import os
import shutil
import threading
import warnings
from collections import Counter
from contextlib import nullcontext

import nibabel as nib
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F

from src.datamodules import cached_arrays
from src.datamodules.brats import BratsDataModule
from src.datamodules.brats.cache import brats_cache
from src.datamodules.brats.releases import MODALITIES, RELEASES
from src.datamodules.cached_files import LOCK_NAME, exclusive
from src.datamodules.volumes.cases import CLASSES, IMAGE
from src.utils.seal import SEAL_LENGTH
from tests.brats_files import AFFINE, SHAPE, case_folder, write_case, write_nifti
from tests.damage import bit_flips
from tests.datamodules.test_brats_reading import with_header

SMALL = {"size": (8, 8, 8), "preprocessing_workers": 0, "val_fraction": 0.2, "test_fraction": 0.3}
BOX = (slice(2, -3), slice(1, -2), slice(3, -1))  # what make_volumes fills


def write_set(root, count=10, release="2018", unlabelled=0, **kwargs):
    for index in range(count + unlabelled):
        write_case(root, release, index, labelled=index < count, **kwargs)
    return root


def make(root, **kwargs):
    return BratsDataModule(str(root), **{"cache_dir": str(root.parent / "cache"), **SMALL, **kwargs})


def prepared(root, stage=None, **kwargs):
    datamodule = make(root, **kwargs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no truth.*")
        if stage != "predict":  # without a trainer it prepares what training needs
            datamodule.prepare_data()
        datamodule.setup(stage)
    return datamodule


def names(datamodule, split):
    return [datamodule.case_name(split, index) for index in range(len(datamodule.cases[split]))]


def index_of(case):
    return int(case.split("_")[-2])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("brats") / "data", unlabelled=2)


@pytest.fixture
def own_root(tmp_path):
    return write_set(tmp_path / "data")


def test_batches(root):
    datamodule = prepared(root, batch_size=3)
    assert datamodule.sample_shape == (4, 8, 8, 8) and datamodule.modalities == MODALITIES
    assert datamodule.num_classes == 4 and datamodule.class_names == ("background", "NCR", "ED", "ET")
    assert list(datamodule.regions.items()) == [("ET", (3,)), ("WT", (1, 2, 3)), ("TC", (1, 3))]
    assert datamodule.label_values == {0: 0, 1: 1, 2: 2, 3: 4}
    batches = list(datamodule.train_dataloader())
    assert [len(batch["index"]) for batch in batches] == [3, 2]
    for batch in batches:
        assert set(batch) == {"image", "label", "index"}
        assert batch["image"].shape[1:] == (4, 8, 8, 8) and batch["image"].dtype == torch.float32
        assert batch["label"].shape[1:] == (8, 8, 8) and batch["label"].dtype == torch.int64
        assert batch["index"].dtype == torch.int64
        assert type(batch["image"]) is type(batch["label"]) is torch.Tensor
    for loader, count in ((datamodule.val_dataloader(), 2), (datamodule.test_dataloader(), 3)):
        batches = list(loader)
        assert [int(batch["index"]) for batch in batches] == list(range(count))
        assert all(batch["image"].shape == (1, 4, 9, 13, 8) for batch in batches)
        assert all(batch["label"].shape == (1, 9, 13, 8) for batch in batches)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_whole_volumes_are_the_scans_z_scored_where_they_are_not_zero(dtype, tmp_path):
    root = write_set(tmp_path / "data", 5, dtype=dtype)
    datamodule = prepared(root)
    for index, batch in enumerate(datamodule.val_dataloader()):
        name = datamodule.case_name("val", index)
        folder = case_folder(root, "2018", index_of(name))
        for channel, modality in enumerate(MODALITIES):
            scan = nib.load(folder / f"{name}_{modality}.nii.gz").get_fdata()[BOX]
            brain = scan != 0
            expected = np.where(brain, (scan - scan[brain].mean()) / scan[brain].std(), 0)
            assert dtype != np.float32 or (scan < 0).any()
            np.testing.assert_allclose(batch["image"][0, channel].numpy(), expected, rtol=0, atol=2e-6)
        truth = nib.load(folder / f"{name}_seg.nii.gz").get_fdata()[BOX]
        assert np.array_equal(batch["label"][0].numpy(), np.where(truth == 4, 3, truth))


def test_a_training_crop_is_a_part_of_its_volume(root):
    datamodule = prepared(root, augment=False, size=(5, 14, 3))
    torch.manual_seed(0)
    for _ in range(5):
        for batch in datamodule.train_dataloader():
            case = datamodule.cases["train"][int(batch["index"])]
            volume = np.pad(case.array(IMAGE), [(0, 0), (0, 0), (1, 1), (0, 0)])
            windows = np.lib.stride_tricks.sliding_window_view(volume, (4, 5, 14, 3))[0]
            places = np.argwhere((windows == batch["image"][0].numpy()).all(axis=(-4, -3, -2, -1)))
            assert len(places) == 1
            x, y, z = places[0]
            classes = np.pad(case.array(CLASSES), [(0, 0), (1, 1), (0, 0)])[x : x + 5, y : y + 14, z : z + 3]
            assert np.array_equal(batch["label"][0], classes)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_batches_follow_the_seed(num_workers, root):
    def epochs():
        torch.manual_seed(0)
        loader = prepared(root, num_workers=num_workers, noise_std=0.1).train_dataloader()
        return [batch for _ in range(2) for batch in loader]

    first, second = epochs(), epochs()
    assert len(first) == 10
    assert all(torch.equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in a)
    assert len({batch["image"].numpy().tobytes() for batch in first}) == 10


def test_augmentation_flips_crops(root):
    torch.manual_seed(0)
    originals = {int(b["index"]): b["image"] for b in prepared(root, augment=False, size=(9, 13, 8)).train_dataloader()}
    quiet = {"intensity_scale": 0.0, "intensity_shift": 0.0}
    for batch in prepared(root, size=(9, 13, 8), **quiet).train_dataloader():
        volume = originals[int(batch["index"])]
        flips = [volume.flip([axis + 2 for axis in range(3) if bits[axis]]) for bits in np.ndindex(2, 2, 2)]
        assert any(torch.equal(batch["image"], flipped) for flipped in flips)
    changed = list(prepared(root, size=(9, 13, 8), intensity_scale=0.5).train_dataloader())
    assert not any(torch.equal(b["image"].sort().values, originals[int(b["index"])].sort().values) for b in changed)


def test_loaders_take_workers_and_pinning(root):
    plain, parallel = prepared(root), prepared(root, num_workers=2, pin_memory=True)
    assert parallel.train_dataloader().pin_memory and parallel.train_dataloader().persistent_workers
    parallel.pin_memory = False
    for a, b in zip(plain.val_dataloader(), parallel.val_dataloader(), strict=True):
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["label"], b["label"])


def test_the_split_is_a_partition_kept_in_a_file(root, tmp_path):
    datamodule = prepared(root)
    parts = {split: names(datamodule, split) for split in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [5, 2, 3]
    assert len({name for part in parts.values() for name in part}) == 10
    [path] = (root.parent / "cache").rglob("split-val0.2-test0.3-seed0.json")
    assert json.loads(path.read_text()) == parts
    own = tmp_path / "new" / "split.json"
    with pytest.warns(UserWarning, match=r"There is no .*new/split\.json yet.*: a split is drawn"):
        other = prepared(root, seed=1, split_file=str(own))
    assert json.loads(own.read_text()) == {split: names(other, split) for split in parts} != parts
    again = prepared(root, seed=2, val_fraction=0.1, split_file=str(own))  # the file decides
    assert all(names(again, split) == names(other, split) for split in parts)


@pytest.mark.parametrize("drawn_elsewhere", [False, True])
def test_what_a_training_left_for_tests_stays_so_where_its_split_is_lost(drawn_elsewhere, own_root, tmp_path):
    trained = prepared(own_root)
    state = json.loads(json.dumps(trained.state_dict()))
    shutil.rmtree(tmp_path / "cache")
    for index in range(10, 14):
        write_case(own_root, "2018", index)
    if drawn_elsewhere:
        assert set(names(prepared(own_root), "test")) & set(names(trained, "train"))
    datamodule = make(own_root)
    datamodule.load_state_dict(state)
    with pytest.warns(UserWarning, match="are those of the training") if drawn_elsewhere else nullcontext():
        datamodule.setup("test")
    assert all(names(datamodule, part) == names(trained, part) for part in ("val", "test"))
    assert len(datamodule.cases["train"]) == 9


def test_a_case_that_a_training_left_for_tests_may_not_be_gone(own_root):
    trained = prepared(own_root)
    shutil.rmtree(case_folder(own_root, "2018", index_of(names(trained, "test")[0])))
    datamodule = make(own_root)
    datamodule.load_state_dict(trained.state_dict())
    with pytest.raises(ValueError, match=r"expected all members of .* that the training left for val and test, got 1"):
        datamodule.prepare_data()


def write_follow_up(folder):
    """Copy a case of 2023 as a second scan of its patient, and return the name of that."""
    follow_up = shutil.copytree(folder, folder.with_name(folder.name.removesuffix("000") + "001"))
    for path in follow_up.iterdir():
        path.rename(follow_up / path.name.replace(folder.name, follow_up.name))
    return follow_up.name


@pytest.mark.parametrize("lost", [False, True])
def test_a_new_scan_of_a_patient_whom_a_training_left_for_tests_does_not_train(lost, tmp_path):
    folders = {folder.name: folder for folder, *_ in (write_case(tmp_path / "data", "2023", i) for i in range(6))}
    trained = prepared(tmp_path / "data", release="2023")
    if lost:
        shutil.rmtree(tmp_path / "cache")
    follow_up = write_follow_up(folders[names(trained, "test")[0]])
    datamodule = make(tmp_path / "data", release="2023")
    datamodule.load_state_dict(trained.state_dict())
    with nullcontext() if lost else pytest.warns(UserWarning, match=f"1 cases are in no part of .*: {follow_up}$"):
        datamodule.setup("test")
    assert names(datamodule, "train") == names(trained, "train") and names(datamodule, "val") == names(trained, "val")
    assert names(datamodule, "test") == sorted([*names(trained, "test"), *([follow_up] if lost else [])])


def test_the_scans_of_a_patient_stay_together_unless_an_earlier_split_divides_them(tmp_path):
    root = tmp_path / "data"
    for index in range(8):
        folder, *_ = write_case(root, "2023", index)
        write_follow_up(folder)
    datamodule = prepared(root, release="2023")
    parts = {split: names(datamodule, split) for split in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [10, 2, 4]
    assert all(set(Counter(name[:-4] for name in part).values()) == {2} for part in parts.values())
    [path] = (tmp_path / "cache").rglob("split-val0.2-test0.3-seed0.json")
    parts["val"][0], parts["train"][0] = parts["train"][0], parts["val"][0]
    path.write_text(json.dumps(parts))
    with pytest.warns(UserWarning) as caught:
        earlier = prepared(root, release="2023")
    assert {split: names(earlier, split) for split in parts} == parts
    [message] = [str(w.message) for w in caught if "scores are too good" in str(w.message)]  # once
    assert message.startswith("2 groups of cases, such as patients, are in train and also in val or test of ")


def test_without_test_cases_the_validation_cases_are_tested(root):
    datamodule = prepared(root, test_fraction=0.0)
    assert names(datamodule, "test") == names(datamodule, "val")
    assert len(names(datamodule, "train")) == 8


def test_a_small_fraction_is_still_one_case(root):
    datamodule = prepared(root, val_fraction=0.0, test_fraction=0.01)
    assert [len(datamodule.cases[split]) for split in ("train", "val", "test")] == [8, 1, 1]


def with_split(tmp_path, root, **changes):
    cases = sorted(path.name for path in root.glob("HGG/*"))
    split = {"train": cases[:2], "val": cases[2:4], "test": cases[4:5], **changes}
    (tmp_path / "split.json").write_text(json.dumps(split))
    return make(root, split_file=str(tmp_path / "split.json"))


def test_a_split_of_ones_own(root, tmp_path):
    datamodule = with_split(tmp_path, root)
    with pytest.warns(UserWarning) as caught:
        datamodule.prepare_data()
        datamodule.setup()
    messages = [str(w.message) for w in caught if "in no part of" in str(w.message)]
    assert len(messages) == 1 and messages[0].startswith("5 cases are in no part of ")
    assert "split.json and are not used: Brats18_TCIA01_0" in messages[0]
    assert [len(datamodule.cases[split]) for split in ("train", "val", "test")] == [2, 2, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val": ["Brats18_TCIA01_000_1"]}, "apart from val and test in .*, got in both: Brats18_TCIA01_000_1"),
        ({"test": ["Brats18_other"]}, "labelled cases of the data in .*, got Brats18_other"),
        ({"train": []}, "cases in train of .*, got none"),
        ({"train": None}, "JSON file with lists of cases train, val, test"),
    ],
)
def test_a_split_that_cannot_be_is_refused(changes, message, root, tmp_path):
    with pytest.raises(ValueError, match=message), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with_split(tmp_path, root, **changes).prepare_data()


def test_a_split_that_is_no_json_is_refused(root, tmp_path):
    (tmp_path / "split.json").write_text("{")
    with pytest.raises(ValueError, match=r"got '.*split\.json': Expecting"):
        prepared(root, split_file=str(tmp_path / "split.json"))


def test_too_few_cases_to_split(tmp_path):
    root = write_set(tmp_path / "data", 2)
    with pytest.raises(ValueError, match=r"more than 2 labelled cases, for val_fraction=0.2 .*, got 2"):
        prepared(root)


def spoil(root):
    """Make four cases bad in different ways, and return their names."""
    folders = [case_folder(root, "2018", index) for index in range(4)]
    (folders[0] / f"{folders[0].name}_t2.nii.gz").unlink()
    write_nifti(folders[1] / f"{folders[1].name}_t1.nii.gz", np.zeros(SHAPE, np.int16))
    path = folders[2] / f"{folders[2].name}_flair.nii.gz"
    path.write_bytes(path.read_bytes()[:-300])
    write_nifti(folders[3] / f"{folders[3].name}_seg.nii.gz", np.full(SHAPE, 3, np.int16))
    return [folder.name for folder in folders]


def test_all_problems_are_listed_together_before_training(own_root):
    bad = spoil(own_root)
    for _ in range(2):  # the second time from the records
        with pytest.raises(ValueError, match="expected complete, valid cases of BraTS 2018") as caught:
            make(own_root).prepare_data()
        lines = str(caught.value).splitlines()
        assert "got 4 that are incomplete or invalid. datamodule.skip_bad_cases=true skips" in lines[0]
        assert [line.split(":")[0].strip() for line in lines[1:]] == bad
        for line, file, message in zip(
            lines[1:],
            ("t2.nii[.gz]", "t1.nii.gz", "flair.nii.gz", "seg.nii.gz"),
            ("expected this file of modality t2", "zeros only", "whole NIfTI file", "labels 0, 1, 2, 4"),
            strict=True,
        ):
            assert f"_{file}: " in line and message in line


def test_bad_cases_can_be_skipped_without_moving_the_others(own_root):
    before = {split: names(prepared(own_root), split) for split in ("train", "val", "test")}
    bad = spoil(own_root)
    datamodule = make(own_root, skip_bad_cases=True)
    with pytest.warns(UserWarning) as caught:
        datamodule.prepare_data()
        datamodule.setup()
    [message] = [str(w.message) for w in caught if "bad cases" in str(w.message)]  # once
    assert message.startswith(f"Skipping 4 bad cases of {own_root}:")
    assert all(f"\n  {name}: " in message for name in bad)
    for split, members in before.items():
        assert names(datamodule, split) == [name for name in members if name not in bad]


def test_a_part_of_bad_cases_only_is_named(own_root):
    spoil(own_root)
    split = {"train": [case_folder("", "2018", 5).name], "val": [case_folder("", "2018", 0).name]}
    split["test"] = split["val"]
    path = own_root.parent / "split.json"
    path.write_text(json.dumps(split))
    with pytest.raises(ValueError, match=r"usable cases with truth for val in .*, got none"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared(own_root, skip_bad_cases=True, split_file=str(path))


def test_a_repaired_case_is_read_again(own_root):
    spoil(own_root)
    for index in range(4):
        write_case(own_root, "2018", index)
    assert sum(len(prepared(own_root).cases[split]) for split in ("train", "val", "test")) == 10


def test_unlabelled_cases_are_named_and_not_trained_on(root):
    datamodule = make(root)
    with pytest.warns(UserWarning) as caught:
        datamodule.prepare_data()
        datamodule.setup()
    [message] = [str(w.message) for w in caught if "no truth" in str(w.message)]
    assert message == ("2 cases have no truth and are for prediction only: Brats18_TCIA01_010_1, Brats18_TCIA01_011_1")


def test_cases_with_lying_headers_are_skipped(own_root):
    scans = [case_folder(own_root, "2018", index) for index in (2, 4)]
    for folder, fields in zip(
        scans, ({"dim": [3, 32000, 32000, 32000, 1, 1, 1, 1]}, {"vox_offset": np.inf}), strict=True
    ):
        path = folder / f"{folder.name}_t2.nii.gz"
        with_header(**fields)(path, nib.load(path).get_fdata().astype(np.int16))
    with pytest.raises(ValueError, match="got 2 that are incomplete or invalid") as caught:
        prepared(own_root)
    assert all(f"{folder.name}_t2.nii.gz: expected a whole NIfTI file" in str(caught.value) for folder in scans)
    with pytest.warns(UserWarning, match="Skipping 2 bad cases"):
        cases = prepared(own_root, skip_bad_cases=True).cases
    assert not {folder.name for folder in scans} & {case.case.name for part in cases.values() for case in part}


def test_a_set_without_any_truth_is_refused(tmp_path):
    root = write_set(tmp_path / "data", 0, unlabelled=3)
    with pytest.raises(ValueError, match="got 0"):
        prepared(root)
    assert len(prepared(root, "predict").cases["predict"]) == 3


def files(root):
    return {path: path.stat().st_mtime_ns for path in sorted((root.parent / "cache").rglob("*.*")) if path.is_file()}


def refuse(*arguments):
    raise AssertionError(arguments)


def test_a_complete_cache_is_only_read(own_root, monkeypatch):
    prepared(own_root)
    before = files(own_root)
    assert len([path for path in before if path.name.endswith(".image.npy")]) == 10
    monkeypatch.setattr("src.datamodules.case_cache.run_parallel", refuse)
    monkeypatch.setattr("src.datamodules.cached_files.require_writable", refuse)
    monkeypatch.setattr("src.datamodules.brats.cache.read_case", refuse)
    prepared(own_root)
    assert files(own_root) == before


def touch(root, stem):
    os.utime(case_folder(root, "2018", 4) / f"{case_folder(root, '2018', 4).name}_t1.nii.gz", (1, 1))


def remove_record(root, stem):
    stem.with_name(stem.name + ".json").unlink()


def remove_image(root, stem):
    stem.with_name(stem.name + ".image.npy").unlink()


def cut_image(root, stem):
    path = stem.with_name(stem.name + ".image.npy")
    path.write_bytes(path.read_bytes()[:-8])


def cut_classes(root, stem):
    stem.with_name(stem.name + ".classes.npy").write_bytes(b"")


def spoil_record(root, stem):
    stem.with_name(stem.name + ".json").write_text('{"sources"')


@pytest.mark.parametrize("change", [touch, remove_record, remove_image, cut_image, cut_classes, spoil_record])
def test_what_is_missing_damaged_or_outdated_is_made_again_and_nothing_else(change, own_root):
    datamodule = prepared(own_root)
    stem = next(
        c.folder / c.case.stem for cases in datamodule.cases.values() for c in cases if index_of(c.case.name) == 4
    )
    expected = np.array(np.load(stem.with_name(stem.name + ".image.npy")))
    before = files(own_root)
    leftover = stem.with_name("half.image.npy.abc.tmp")
    leftover.write_bytes(b"half")
    change(own_root, stem)
    prepared(own_root)
    after = files(own_root)
    changed = {path.name.removeprefix(stem.name) for path in before if after.get(path) != before[path]}
    assert changed - {LOCK_NAME} == {".image.npy", ".classes.npy", ".json"}
    assert np.array_equal(np.load(stem.with_name(stem.name + ".image.npy")), expected)
    assert not leftover.exists()


def arrays_of(case):
    # A new process would read the file again, as it is now.
    cached_arrays._check_once.cache_clear()
    return np.array(case.array(IMAGE)), np.array(case.array(CLASSES))


@pytest.mark.parametrize("ending", [".image.npy", ".classes.npy", ".json"])
def test_every_flipped_bit_of_a_cached_case_is_found_and_named(ending, own_root):
    datamodule = prepared(own_root)
    [case, *_] = datamodule.cases["train"]
    expected = arrays_of(case)
    path = case.folder / f"{case.case.stem}{ending}"
    cache = brats_cache(datamodule.cache_dir, own_root, datamodule.release)
    for _ in bit_flips(path, 200):
        with pytest.raises(ValueError, match=f"'{path}'"):
            cache.load(case.case)  # at the start
            arrays_of(case)
    assert cache.has(case.case)
    assert all(map(np.array_equal, arrays_of(case), expected))


def test_a_case_of_a_version_before_the_digests_is_made_again(own_root):
    [case, *_] = prepared(own_root).cases["train"]
    expected = arrays_of(case)
    for ending in (".image.npy", ".classes.npy", ".json"):
        path = case.folder / f"{case.case.stem}{ending}"
        path.write_bytes(path.read_bytes()[:-SEAL_LENGTH])
    prepared(own_root)
    assert all(map(np.array_equal, arrays_of(case), expected))


def test_the_cache_depends_on_data_and_release(root, tmp_path):
    from src.datamodules.brats.releases import find_release

    folders = {
        brats_cache(tmp_path, data, find_release(release)).folder
        for data in (root, root / "HGG")
        for release in (2018, 2019)
    }
    assert len(folders) == 4


def test_waits_for_whoever_preprocesses(own_root):
    datamodule = prepared(own_root)
    first = datamodule.cases["train"][0]
    stem = first.folder / first.case.stem
    remove_record(own_root, stem)
    with exclusive(stem.parent, "preprocesses"):
        second = threading.Thread(target=prepared, args=(own_root,))
        second.start()
        second.join(0.5)
        assert second.is_alive() and not stem.with_name(stem.name + ".json").exists()
    second.join(60)
    assert not second.is_alive() and stem.with_name(stem.name + ".json").exists()


@pytest.mark.slow
def test_two_processes_that_start_together_share_the_work(own_root):
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=prepared, args=(own_root,), kwargs={"preprocessing_workers": n}) for n in (0, 2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sum(len(prepared(own_root).cases[split]) for split in ("train", "val", "test")) == 10
    assert not list((own_root.parent / "cache").rglob("*.tmp"))


@pytest.mark.slow
def test_processes_make_the_same_arrays(own_root, tmp_path):
    here = prepared(own_root)
    there = prepared(own_root, cache_dir=str(tmp_path / "other"), preprocessing_workers=None)
    for case, other in zip(here.cases["train"], there.cases["train"], strict=True):
        assert case.folder != other.folder and case.facts == other.facts
        assert all(np.array_equal(case.array(name), other.array(name)) for name in (IMAGE, CLASSES))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("release", RELEASES)
def test_a_prediction_of_the_truth_is_the_file_of_the_truth(release, ending, tmp_path):
    root = write_set(tmp_path / "data", 3, release, ending=ending)
    labelled = prepared(root, release=release)
    datamodule = prepared(root, "predict", release=release)
    assert names(datamodule, "predict") == sorted(case_folder("", release, index).name for index in range(3))
    truths = {
        c.case.name: torch.from_numpy(np.array(c.array(CLASSES))) for cases in labelled.cases.values() for c in cases
    }
    for batch in datamodule.predict_dataloader():
        assert set(batch) == {"image", "index"} and len(batch["image"]) == 1
        name = datamodule.case_name("predict", int(batch["index"]))
        assert batch["image"].shape[2:] == truths[name].shape
        path = datamodule.save_prediction(int(batch["index"]), truths[name], tmp_path / "predictions")
        assert path == tmp_path / "predictions" / f"{name}.nii.gz"
        written = nib.load(path)
        [truth] = root.rglob(RELEASES[release].stem(name, "seg") + ending)
        assert np.array_equal(written.get_fdata(), nib.load(truth).get_fdata())
        assert np.array_equal(written.affine, AFFINE) and written.shape == SHAPE
        assert written.get_data_dtype() == np.uint8


def test_the_header_of_a_prediction_is_that_of_its_scan(own_root, tmp_path):
    name = case_folder("", "2018", 0).name
    scan_path = case_folder(own_root, "2018", 0) / f"{name}_t1.nii.gz"
    image = nib.load(scan_path)
    scan = nib.Nifti1Image(np.asarray(image.dataobj) / 7, AFFINE)
    scan.set_data_dtype(np.int16)  # with a slope
    scan.set_sform(AFFINE, 4)
    scan.set_qform(AFFINE, 1)
    scan.header.set_xyzt_units("mm", "sec")
    scan.header["descrip"] = b"atlas"
    scan.header["cal_max"] = 900
    nib.save(scan, scan_path)
    datamodule = prepared(own_root, "predict")
    shape = datamodule.cases["predict"][0].array(IMAGE).shape[1:]
    label = torch.full(shape, 3)
    path = datamodule.save_prediction(0, label, tmp_path)
    header = nib.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 1)
    assert header.get_xyzt_units() == ("mm", "sec") and bytes(header["descrip"]).startswith(b"atlas")
    assert header["cal_max"] == 0 and set(np.unique(nib.load(path).get_fdata())) == {0, 4}
    content = path.read_bytes()
    assert datamodule.save_prediction(0, label, tmp_path).read_bytes() == content
    assert [p.name for p in tmp_path.glob("*.nii.gz")] == [path.name]
    with pytest.raises(ValueError, match=r"classes of shape \(9, 13, 8\) for .*000_1, got \(9, 13, 7\)"):
        datamodule.save_prediction(0, label[..., :-1], tmp_path)
    with pytest.raises(ValueError, match=r"classes among \[0, 1, 2, 3\], got \[4\]"):
        datamodule.save_prediction(0, label + 1, tmp_path)


def test_prediction_takes_cases_with_and_without_truth_even_a_bad_one(own_root):
    write_case(own_root, "2018", 20, labelled=False)
    bad = case_folder(own_root, "2018", 0)
    (bad / f"{bad.name}_seg.nii.gz").write_bytes(b"")
    assert len(names(prepared(own_root, "predict"), "predict")) == 11


def test_prediction_takes_the_arrays_of_training(own_root):
    prepared(own_root)
    before = files(own_root)
    prepared(own_root, "predict")
    assert files(own_root) == before


def test_prediction_of_another_folder(own_root, tmp_path):
    other = write_set(tmp_path / "validation", 0, unlabelled=2)
    datamodule = prepared(own_root, "predict", predict_dir=str(other))
    assert len(datamodule.cases["predict"]) == 2
    path = next(other.rglob("*_t1.nii.gz"))
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"cases of BraTS 2018 in {other}, got 1 that are incomplete or invalid"):
        prepared(own_root, "predict", predict_dir=str(other))
    with pytest.warns(UserWarning, match="Skipping 1 bad cases"):
        assert len(prepared(own_root, "predict", predict_dir=str(other), skip_bad_cases=True).cases["predict"]) == 1


class Voxelwise(pl.LightningModule):
    """The smallest segmentation network."""

    def __init__(self):
        super().__init__()
        self.net = nn.Conv3d(4, 4, 1)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch["image"]), batch["label"])

    def validation_step(self, batch, batch_idx):
        self.log("loss", F.cross_entropy(self.net(batch["image"]), batch["label"]))

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        [label], [index] = self.net(batch["image"]).argmax(dim=1), batch["index"]
        self.trainer.datamodule.save_prediction(index, label, self.folder)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def test_lightning_trains_tests_and_predicts(own_root, tmp_path):
    silent = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", **silent)
    datamodule, model = make(own_root, batch_size=2), Voxelwise()
    model.folder = tmp_path / "predictions"
    trainer.fit(model, datamodule)
    trainer.test(model, datamodule, verbose=False)
    trainer.predict(model, datamodule, return_predictions=False)
    assert len(list(model.folder.glob("*.nii.gz"))) == 10


def test_a_trainer_that_predicts_prepares_nothing_else(own_root, tmp_path):
    spoil(own_root)
    other = write_set(tmp_path / "validation", 0, unlabelled=2)
    silent = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    model = Voxelwise()
    model.folder = tmp_path / "predictions"
    datamodule = make(own_root, predict_dir=str(other))
    pl.Trainer(accelerator="cpu", **silent).predict(model, datamodule, return_predictions=False)
    assert len(list(model.folder.glob("*.nii.gz"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"release": 2016}, "release as one of 2017, .*, got 2016"),
        ({"size": (8, 8)}, r"size as three positive numbers of voxels, got \[8, 8\]"),
        ({"size": (8, 0, 8)}, r"size as .*, got \[8, 0, 8\]"),
        ({"tumour_probability": 1.5}, "tumour_probability from 0 to 1, got 1.5"),
        ({"val_fraction": 0.6}, "val_fraction from 0 to 0.5, got 0.6"),
        ({"test_fraction": -0.1}, "test_fraction from 0 to 0.5, got -0.1"),
        ({"intensity_scale": -1}, "intensity_scale of at least 0, got -1"),
        ({"intensity_shift": -1}, "intensity_shift of at least 0"),
        ({"noise_std": -1}, "noise_std of at least 0"),
        ({"seed": -1}, "seed of at least 0"),
        ({"batch_size": 0}, "batch_size of at least 1, got 0"),
        ({"num_workers": -1}, "num_workers of at least 0"),
        ({"preprocessing_workers": -1}, "preprocessing_workers of at least 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=f"expected {message}"):
        make(tmp_path / "data", **arguments)


def test_an_unwritable_cache_is_named(own_root):
    (own_root.parent / "file").write_text("")
    datamodule = make(own_root)
    datamodule.cache_dir = own_root.parent / "file"
    with pytest.raises(ValueError, match=r"folder that can be written to, got .*file"):
        datamodule.prepare_data()
