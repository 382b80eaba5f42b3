import gzip

import nibabel as nib
import numpy as np
import pytest

from src.datamodules.brats.cases import find_cases
from src.datamodules.brats.reading import read_case
from src.datamodules.brats.releases import find_release
from src.datamodules.volumes.cases import CaseVolumes
from src.utils.nifti import read_volume
from tests.brats_files import AFFINE, SHAPE, write_case, write_nifti


def read(root, release=2018):
    [case], [] = find_cases(root, find_release(release))
    return read_case(case, find_release(release))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64])
def test_values_are_those_of_the_files(dtype, ending, tmp_path):
    _, images, labels = write_case(tmp_path, dtype=dtype, ending=ending)
    volumes = read(tmp_path)
    assert volumes.images.dtype == np.float32 and volumes.classes.dtype == np.uint8
    assert np.array_equal(volumes.images, images.astype(np.float32))
    assert np.array_equal(volumes.classes, np.where(labels == 4, 3, labels))


def test_scaled_integers_are_scaled(tmp_path):
    folder, images, _ = write_case(tmp_path)
    image = nib.Nifti1Image(images[0] / 7, AFFINE)
    image.set_data_dtype(np.int16)
    path = folder / f"{folder.name}_t1.nii.gz"
    nib.save(image, path)
    assert nib.load(path).dataobj.slope != 1
    assert np.array_equal(read(tmp_path).images[0], nib.load(path).get_fdata().astype(np.float32))


@pytest.mark.parametrize("release", [2017, 2018, 2019, 2020, 2021, 2023, 2024])
def test_labels_become_the_same_classes_in_every_release(release, tmp_path):
    _, _, labels = write_case(tmp_path, str(release))
    enhancing = 3 if release >= 2023 else 4
    classes = read(tmp_path, release).classes
    assert np.array_equal(classes == 3, labels == enhancing)
    assert np.array_equal(classes == 1, labels == 1) and np.array_equal(classes == 2, labels == 2)
    assert (classes == 4).any() == (release == 2024)


def test_labels_stored_as_floating_point_numbers_are_labels(tmp_path):
    folder, _, labels = write_case(tmp_path)
    write_nifti(folder / f"{folder.name}_seg.nii.gz", labels.astype(np.float64))
    assert np.array_equal(read(tmp_path).classes == 3, labels == 4)


def test_without_truth_there_are_no_classes(tmp_path):
    write_case(tmp_path, labelled=False)
    assert read(tmp_path).classes is None


def truncated(path, voxels):
    path.write_bytes(path.read_bytes()[:-200])


def bit_flipped(path, voxels):
    # In a stored block, where only the checksum tells.
    content = bytearray(gzip.compress(nib.Nifti1Image(voxels, AFFINE).to_bytes(), compresslevel=0))
    content[-500] ^= 1
    path.write_bytes(content)


def empty(path, voxels):
    path.write_bytes(b"")


def text(path, voxels):
    path.write_bytes(b"<html>403 Forbidden</html>" * 40)


def compressed_text(path, voxels):
    path.write_bytes(gzip.compress(b"<html>403 Forbidden</html>" * 40))


def with_header(**fields):
    """A file whose header says something else than its data."""

    def damage(path, voxels):
        image = nib.Nifti1Image(voxels, AFFINE)
        content = bytearray(image.to_bytes())
        header = np.frombuffer(content, image.header.template_dtype, 1)[0]
        for name, value in fields.items():
            header[name] = value
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)

    return damage


HEADERS = [
    (with_header(dim=[3, 32000, 32000, 32000, 1, 1, 1, 1]), "expected 65536000000352 bytes for shape .*, got 5"),
    (with_header(dim=[3, 2000, 2000, 2000, 1, 1, 1, 1]), "expected 16000000352 bytes for shape"),
    (with_header(dim=[3, -5, 16, 12, 1, 1, 1, 1]), r"a volume of 3 dimensions, got shape \(-5, 16, 12\)"),
    (with_header(dim=[3, 14, 0, 12, 1, 1, 1, 1]), r"a volume of 3 dimensions, got shape \(14, 0, 12\)"),
    (with_header(vox_offset=np.inf), "OverflowError: cannot convert float infinity"),
    (with_header(vox_offset=np.nan), "cannot convert float NaN"),
    (with_header(vox_offset=1e30), r"expected 10\d{29} bytes for shape"),
    (with_header(vox_offset=-1e9), "offset"),
    (with_header(datatype=9999), "data code 9999 not recognized"),
]


def shorter(path, voxels):
    write_nifti(path, voxels[:-1])


def series(path, voxels):
    write_nifti(path, np.stack([voxels, voxels], axis=-1))


def coloured(path, voxels):
    write_nifti(path, np.zeros(voxels.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")]))


def shifted(path, voxels):
    affine = AFFINE.copy()
    affine[0, 3] += 1
    write_nifti(path, voxels, affine)


def mirrored(path, voxels):
    write_nifti(path, voxels, np.diag([-1.0, 1, 1, 1]) @ AFFINE)


def with_nan(path, voxels):
    voxels = voxels.astype(np.float32)
    voxels[3, 3, 3] = np.nan
    write_nifti(path, voxels)


def too_large(path, voxels):
    voxels = voxels.astype(np.float64)
    voxels[3, 3, 3:5] = 1e300
    write_nifti(path, voxels)


def zeros(path, voxels):
    write_nifti(path, np.zeros_like(voxels))


WHOLE = "expected a whole NIfTI file, got"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, f"{WHOLE} .*: EOFError: Compressed file ended"),
        (bit_flipped, f"{WHOLE} .*: CRC check failed"),
        (empty, f"{WHOLE} .*: expected the header of NIfTI-1 or NIfTI-2, got 0 bytes"),
        (text, f"{WHOLE} .*: expected the header of NIfTI-1 or NIfTI-2, got 1040 bytes, b'<html>403"),
        (compressed_text, WHOLE),
        *[(damage, f"{WHOLE} .*: .*{message}") for damage, message in HEADERS],
        (shorter, rf"expected the spatial shape \({SHAPE[0]}, .* of .*_t1.nii.gz, got \({SHAPE[0] - 1}, "),
        (series, r"3 dimensions, got shape \(14, 16, 12, 2\)"),
        (coloured, "integers or floating-point numbers, got "),
        (shifted, r"expected the place of .*_t1.nii.gz, got one up to 1 mm away"),
        (mirrored, rf"expected the place of .*_t1.nii.gz, got one up to {2 * SHAPE[0]} mm away"),
        (with_nan, "expected finite values, got 1 infinite or NaN values"),
        (too_large, "expected finite values, got 2 infinite or NaN values"),
        (zeros, "expected a brain, got zeros only"),
    ],
)
def test_a_damaged_modality_is_named(damage, message, tmp_path):
    folder, images, _ = write_case(tmp_path)
    damage(folder / f"{folder.name}_t2.nii.gz", images[2])
    [problem] = read(tmp_path)
    assert (problem.case, problem.file) == (folder.name, f"{folder.name}_t2.nii.gz")
    with pytest.raises(ValueError, match=message):
        raise ValueError(problem.message)


@pytest.mark.parametrize("damage", [truncated, empty, text, *(damage for damage, _ in HEADERS)])
def test_a_damaged_uncompressed_file_is_named(damage, tmp_path):
    folder, images, _ = write_case(tmp_path, ending=".nii")
    damage(folder / f"{folder.name}_t2.nii", images[2])
    [problem] = read(tmp_path)
    assert problem.file == f"{folder.name}_t2.nii" and problem.message.startswith(WHOLE)


@pytest.mark.parametrize(
    ("release", "value", "message"),
    [
        (2018, 3, r"labels 0, 1, 2, 4 of release 2018, got 0, 1, 2, 3, 4$"),
        (2023, 4, r"labels 0, 1, 2, 3 of release 2023, got 0, 1, 2, 3, 4; datamodule.release=2024 reads them"),
        (2024, 5, "labels 0, 1, 2, 3, 4 of release 2024, got 0, 1, 2, 3, 4, 5$"),
        (2018, 1.5, "got 0, 1, 1.5, 2, 4$"),
        (2018, -1, "got -1, 0, 1, 2, 4$"),
        (2018, np.nan, "expected finite values, got 1 infinite or NaN values"),
    ],
)
def test_labels_outside_the_set_of_the_release_are_named(release, value, message, tmp_path):
    folder, _, labels = write_case(tmp_path, str(release))
    labels = labels.astype(np.float64 if isinstance(value, float) else np.int16)
    labels[0, 0, 0] = value
    name = find_release(release).stem(folder.name, "seg") + ".nii.gz"
    write_nifti(folder / name, labels)
    [problem] = read(tmp_path, release)
    assert problem.file == name
    with pytest.raises(ValueError, match=message):
        raise ValueError(problem.message)


def test_a_whole_case_of_another_release_is_recognised_by_its_labels(tmp_path):
    folder, _, labels = write_case(tmp_path, "2018")
    write_nifti(folder / f"{folder.name}_seg.nii.gz", np.where(labels == 4, 3, labels))
    [problem] = read(tmp_path)
    assert problem.message.endswith("got 0, 1, 2, 3; datamodule.release=2018-et3 reads them")
    assert np.array_equal(read(tmp_path, "2018-et3").classes == 3, labels == 4)


def test_everything_that_is_wrong_is_listed(tmp_path):
    folder, images, labels = write_case(tmp_path)
    truncated(folder / f"{folder.name}_t1.nii.gz", images[0])
    with_nan(folder / f"{folder.name}_t2.nii.gz", images[2])
    labels[0, 0, 0] = 9
    shifted(folder / f"{folder.name}_seg.nii.gz", labels[:-1])
    problems = read(tmp_path)
    assert [problem.file.split("_")[-1] for problem in problems] == ["t1.nii.gz", "t2.nii.gz"] + ["seg.nii.gz"] * 2
    starts = ["expected a whole", "expected finite", "expected the spatial shape", "expected labels"]
    assert all(p.message.startswith(start) for p, start in zip(problems, starts, strict=True))


def test_rounding_in_a_header_is_no_difference(tmp_path):
    folder, images, _ = write_case(tmp_path)
    write_nifti(folder / f"{folder.name}_t2.nii.gz", images[2], AFFINE * (1 + 1e-6))
    assert isinstance(read(tmp_path), CaseVolumes)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"expected a whole NIfTI file, got .*: No such file"):
        read_volume(tmp_path / "nothing.nii.gz")
