"""BraTS as its mirrors have it: folders named like files, other cases of letters, labels and headers."""

import gzip
import warnings

import nibabel as nib
import numpy as np
import pytest

from src.datamodules.brats import BratsDataModule
from src.datamodules.brats.cases import find_cases
from src.datamodules.brats.reading import read_case
from src.datamodules.brats.releases import find_release
from src.datamodules.volumes.cases import CaseVolumes
from tests.brats_files import AFFINE, write_case, write_nifti


def read(root, release=2020):
    [case], problems = find_cases(root, find_release(release))
    assert problems == []
    return read_case(case, find_release(release))


def assert_reads(root, images, labels, release=2020):
    volumes = read(root, release)
    assert isinstance(volumes, CaseVolumes)
    assert np.array_equal(volumes.images, images)
    assert np.array_equal(volumes.classes, np.where(labels == 4, 3, labels))


def datamodule(root, **kwargs):
    small = {"size": (8, 8, 8), "preprocessing_workers": 0, "val_fraction": 0.34, "test_fraction": 0.0}
    return BratsDataModule(str(root), release=2020, cache_dir=str(root.parent / "cache"), **small, **kwargs)


def into_folder(path, name):
    """Put a file into a folder of the file's own name."""
    moved = path.rename(path.with_name("moving"))
    path.mkdir()
    moved.rename(path / name)


@pytest.mark.parametrize("inner", [None, "00000057_brain_flair.nii"])
def test_a_folder_named_like_a_file_holds_the_file(inner, tmp_path):
    folder, images, labels = write_case(tmp_path, "2020", ending=".nii")
    for path in list(folder.iterdir()):
        into_folder(path, inner or path.name)
        (path / "._00000057_brain_flair.nii").write_bytes(b"")
    assert_reads(tmp_path, images, labels)


def test_files_of_one_name_in_folders_of_their_own_are_told_apart_when_they_change(tmp_path):
    root = tmp_path / "data"
    for index in range(3):
        folder, *_ = write_case(root, "2020", index, ".nii")
        for path in list(folder.iterdir()):
            into_folder(path, "brain.nii")
    made = datamodule(root)
    made.prepare_data()
    made.setup()
    case = made.cases["train"][0]
    image = nib.load(case.case.images[2])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * np.float32(2), AFFINE), case.case.images[2])
    made = datamodule(root)
    assert not made.cache_of(root).has(case.case)


@pytest.mark.parametrize(
    ("files", "message"),
    [([], "got none"), (["a.nii", "b.nii"], "got a.nii, b.nii"), (["readme.txt"], "got none")],
)
def test_a_folder_named_like_a_file_without_one_file_is_named(files, message, tmp_path):
    folder, *_ = write_case(tmp_path, "2020", ending=".nii")
    path = folder / f"{folder.name}_t2.nii"
    path.unlink()
    path.mkdir()
    for name in files:
        (path / name).write_bytes(b"")
    cases, [problem] = find_cases(tmp_path, find_release(2020))
    assert cases == [] and problem.file == path.name
    assert problem.message == f"expected one NIfTI file in this folder, {message}"


@pytest.mark.parametrize("change", [str.upper, lambda name: name.replace("_t1ce", "_T1CE").replace("flair", "FLAIR")])
def test_upper_case_is_the_same(change, tmp_path):
    folder, images, labels = write_case(tmp_path, "2020")
    for path in list(folder.iterdir()):
        path.rename(path.with_name(change(path.name)))
    assert_reads(tmp_path, images, labels)


def test_labels_that_a_scale_has_moved_are_labels(tmp_path):
    folder, images, labels = write_case(tmp_path, "2020")
    moved = labels * 1.00002
    write_nifti(folder / f"{folder.name}_seg.nii.gz", moved)
    assert_reads(tmp_path, images, labels)
    moved[0, 0, 0] = 1.002
    write_nifti(folder / f"{folder.name}_seg.nii.gz", moved)
    [problem] = read(tmp_path)
    assert problem.message.endswith("got 0, 1, 1.002, 2, 4")


@pytest.mark.parametrize("release", ["2017", "2018", "2019", "2020", "2021"])
def test_three_for_four_is_read_by_the_release_that_the_message_names(release, tmp_path):
    folder, images, labels = write_case(tmp_path, release)
    write_nifti(folder / f"{folder.name}_seg.nii.gz", np.where(labels == 4, 3, labels))
    [problem] = read(tmp_path, release)
    _, _, named = problem.message.partition("release=")
    assert named == f"{release}-et3 reads them"
    assert_reads(tmp_path, images, labels, named.split()[0])


@pytest.mark.parametrize("regular", ["seg.nii", "seg.nii.gz"])
def test_both_names_of_the_truth_of_case_355_are_one_truth(regular, tmp_path):
    folder, images, labels = write_case(tmp_path, "2020", 355, ".nii")
    (folder / "BraTS20_Training_355_seg.nii").unlink()
    write_nifti(folder / f"BraTS20_Training_355_{regular}", labels)
    write_nifti(folder / "W39_1998.09.19_Segm.nii", labels)
    assert_reads(tmp_path, images, labels)
    write_nifti(folder / "W39_1998.09.19_Segm.nii", np.zeros_like(labels))
    _, [problem] = find_cases(tmp_path, find_release(2020))
    assert f"got BraTS20_Training_355_{regular} and W39_1998.09.19_Segm.nii, which differ" in problem.message


@pytest.mark.parametrize("background", ["negative", "z-scores"])
def test_a_background_that_is_not_zero_is_named_once(background, tmp_path):
    root = tmp_path / "data"
    for index in range(3):
        folder, images, _ = write_case(root, "2020", index)
    image = images[2].astype(np.float32)
    image = image - 3 if background == "negative" else (image - image.mean()) / image.std()
    write_nifti(folder / f"{folder.name}_t2.nii.gz", image)
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UserWarning) as caught:
            made = datamodule(root)
            made.prepare_data()
            made.setup()
        [message] = [str(w.message) for w in caught if "background" in str(w.message)]
        assert message.startswith("The background of 1 scans is not 0, and their z-scores include it.")
        expected = f"{folder.name}_t2.nii.gz: 100% of the outermost voxels are not 0, most often {image[0, 0, 0]:g}"
        assert message.splitlines()[1:] == [f"  {expected}"]


def test_a_brain_that_touches_the_border_is_no_background(tmp_path):
    folder, images, _ = write_case(tmp_path / "data", "2020")
    touching = images[0].copy()
    touching[:, :, 0] = 5
    write_nifti(folder / f"{folder.name}_t1.nii.gz", touching)
    volumes = read(tmp_path)
    assert isinstance(volumes, CaseVolumes) and volumes.oddities == []


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_2_is_read_and_written(order, ending, tmp_path):
    root = tmp_path / "data"
    for index in range(3):
        folder, images, labels = write_case(root, "2020", index, ending)
    for path in folder.iterdir():
        first = nib.load(path)
        header = nib.Nifti2Header(endianness=order)
        header.set_data_dtype(first.get_data_dtype())
        content = nib.Nifti2Image(np.asarray(first.dataobj), first.affine, header).to_bytes()
        path.write_bytes(gzip.compress(content) if ending == ".nii.gz" else content)
    case = next(case for case in find_cases(root, find_release(2020))[0] if case.name == folder.name)
    volumes = read_case(case, find_release(2020))
    assert isinstance(volumes, CaseVolumes) and np.array_equal(volumes.images, images)
    made = datamodule(root)
    made.setup("predict")
    index = [cached.case.name for cached in made.cases["predict"]].index(folder.name)
    image = made.dataset("predict")[index]["image"]
    written = nib.load(made.save_prediction(index, image[0].long() * 0 + 3, tmp_path / "predictions"))
    assert isinstance(written, nib.Nifti2Image) and written.shape == labels.shape
    assert np.array_equal(written.affine, AFFINE) and set(np.unique(written.dataobj)) == {0, 4}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_an_extension_may_be_wrong_about_gzip(ending, tmp_path):
    folder, images, labels = write_case(tmp_path, "2020", ending=ending)
    for path in folder.iterdir():
        content = path.read_bytes()
        path.write_bytes(gzip.decompress(content) if ending == ".nii.gz" else gzip.compress(content))
    assert_reads(tmp_path, images, labels)


def test_nothing_is_warned_about_a_set_as_it_is_handed_out(tmp_path):
    for index in range(3):
        write_case(tmp_path / "data", "2020", index)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        datamodule(tmp_path / "data").prepare_data()
