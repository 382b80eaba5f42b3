from pathlib import Path

import pytest

from src.datamodules.brats.cases import find_cases
from src.datamodules.brats.releases import MODALITIES, RELEASES, find_release
from tests.brats_files import case_folder, write_case, write_nifti

# Where the files of each release lie, as it is handed out.
REAL_NAMES = {
    "2017": "HGG/Brats17_TCIA_001_1/Brats17_TCIA_001_1_t1ce.nii.gz",
    "2018": "HGG/Brats18_TCIA01_001_1/Brats18_TCIA01_001_1_t1ce.nii.gz",
    "2019": "HGG/BraTS19_TCIA01_001_1/BraTS19_TCIA01_001_1_t1ce.nii.gz",
    "2020": "BraTS20_Training_001/BraTS20_Training_001_t1ce.nii.gz",
    "2021": "BraTS2021_00001/BraTS2021_00001_t1ce.nii.gz",
    "2023": "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1c.nii.gz",
    "2024": "BraTS-GLI-00001-100/BraTS-GLI-00001-100-t1c.nii.gz",
}


def test_every_release_has_its_labels_and_regions():
    for release in RELEASES.values():
        assert set(release.label_values) == set(range(5 if release.name == "2024" else 4))
        assert release.label_values[3] == (4 if release.name in ("2017", "2018", "2019", "2020", "2021") else 3)
        assert list(release.regions.items())[:3] == [("ET", (3,)), ("WT", (1, 2, 3)), ("TC", (1, 3))]
        assert dict(list(release.regions.items())[3:]) == ({"RC": (4,)} if release.name == "2024" else {})


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("release", RELEASES)
def test_layouts(release, ending, tmp_path):
    root = tmp_path / "MICCAI" / "Training"
    for index in (1, 2, 3):
        write_case(root, release, index, ending, labelled=index != 3)
    expected = root / REAL_NAMES[release[:4]].replace(".nii.gz", ending)
    assert expected.is_file()
    for folder in (root, tmp_path):  # at any depth
        cases, problems = find_cases(folder, find_release(release))
        assert problems == []
        assert [case.name for case in cases] == sorted(case_folder("", release, index).name for index in (1, 2, 3))
        first = next(case for case in cases if case.name == expected.parent.name)
        assert len(first.images) == len(MODALITIES) and first.images[1] == expected
        assert [case.truth is None for case in cases].count(True) == 1
        assert all(path.is_file() for case in cases for path in case.files)
        assert first._replace(truth=None).files == first.images


@pytest.mark.parametrize("name", [2018, "2018"])
def test_a_release_is_a_year(name):
    assert find_release(name).name == "2018"


@pytest.mark.parametrize("name", [2022, "brats2018", None])
def test_an_unknown_release_is_named(name):
    with pytest.raises(ValueError, match=f"release as one of 2017, 2018, .*2024, 2017-et3, .*, got {name!r}"):
        find_release(name)


def test_the_renamed_truth_of_2020_is_found(tmp_path):
    folder, *_ = write_case(tmp_path, "2020", 355, ".nii")
    truth = (folder / "BraTS20_Training_355_seg.nii").rename(folder / "W39_1998.09.19_Segm.nii")
    [case], problems = find_cases(tmp_path, find_release(2020))
    assert problems == [] and case.truth == truth
    [case], _ = find_cases(tmp_path, find_release(2021))  # which knows nothing of that name
    assert case.truth is None


def test_each_missing_file_is_named_with_what_is_there(tmp_path):
    folder, *_ = write_case(tmp_path, "2018", 0)
    (folder / f"{folder.name}_t1ce.nii.gz").unlink()
    (folder / f"{folder.name}_flair.nii.gz").rename(folder / "flair.nii.gz")
    write_case(tmp_path, "2018", 1)
    cases, problems = find_cases(tmp_path, find_release(2018))
    assert [case.name for case in cases] == ["Brats18_TCIA01_001_1"]
    assert [(p.case, p.file) for p in problems] == [
        (folder.name, f"{folder.name}_t1ce.nii[.gz]"),
        (folder.name, f"{folder.name}_flair.nii[.gz]"),
    ]
    assert f"modality t1ce, got only {folder.name}_seg.nii.gz, {folder.name}_t1.nii.gz" in problems[0].message


def test_two_different_volumes_of_one_modality_are_a_problem(tmp_path):
    folder, images, _ = write_case(tmp_path, "2018", 0)
    write_nifti(folder / f"{folder.name}_t1.nii", images[1])
    cases, [problem] = find_cases(tmp_path, find_release(2018))
    assert cases == [] and problem.file == f"{folder.name}_t1.nii[.gz]"
    assert problem.message.startswith("expected one file or equal copies, got ")
    assert f"{folder.name}_t1.nii.gz" in problem.message and f"{folder.name}_t1.nii," in problem.message


def test_a_link_to_nothing_is_a_problem(tmp_path):
    folder, *_ = write_case(tmp_path, "2018", 0)
    path = folder / f"{folder.name}_t2.nii.gz"
    target = path.rename(tmp_path / "t2")
    path.symlink_to(target)
    assert len(find_cases(tmp_path, find_release(2018))[0]) == 1
    target.unlink()
    cases, [problem] = find_cases(tmp_path, find_release(2018))
    assert cases == [] and problem.file == path.name and "got a broken link" in problem.message


def test_one_case_in_two_folders_is_a_problem(tmp_path):
    for root in (tmp_path / "a", tmp_path / "b"):
        write_case(root, "2018", 0)
    cases, [problem] = find_cases(tmp_path, find_release(2018))
    assert cases == [] and problem.message == "expected one folder of this name, got 2"


def test_hidden_files_and_folders_are_no_cases(tmp_path):
    write_case(tmp_path, "2018", 0)
    write_case(tmp_path / ".Trash", "2018", 1)
    resource = tmp_path / "__MACOSX" / "Brats18_X"
    resource.mkdir(parents=True)
    (resource / "._Brats18_X_t1.nii.gz").write_bytes(b"")
    assert len(find_cases(tmp_path, find_release(2018))[0]) == 1


def test_a_missing_folder_says_where_to_get_data(tmp_path):
    with pytest.raises(ValueError, match=r"BraTS 2018, .* got .*nothing, which does not exist\. datamodule=brats_demo"):
        find_cases(tmp_path / "nothing", find_release(2018))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="which is no folder"):
        find_cases(tmp_path / "file", find_release(2018))


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"Brats18_TCIA01_131_1_t1.nii\[.gz\], got .* with no NIfTI file"):
        find_cases(tmp_path, find_release(2018))
    (tmp_path / "scan.nii").write_bytes(b"")
    with pytest.raises(ValueError, match=r"with other NIfTI files, such as scan.nii"):
        find_cases(tmp_path, find_release(2018))


@pytest.mark.parametrize(
    ("there", "asked", "hint"), [("2023", 2018, "2023 or 2024"), ("2021", 2024, "2017 or 2018 or 2019 or 2020 or 2021")]
)
def test_files_of_another_release_are_recognised(there, asked, hint, tmp_path):
    write_case(tmp_path, there)
    with pytest.raises(ValueError, match=f"files named as in release {hint}$"):
        find_cases(tmp_path, find_release(asked))


def test_a_case_may_be_the_folder_itself(tmp_path, monkeypatch):
    folder, *_ = write_case(tmp_path, "2018", 0)
    monkeypatch.chdir(folder)
    for root in (folder, Path(".")):
        assert [case.name for case in find_cases(root, find_release(2018))[0]] == [folder.name]
