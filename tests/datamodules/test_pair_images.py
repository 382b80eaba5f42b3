"""Images of every format: their values, channels and places, and what is refused."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image as Picture

from src.datamodules.pairs.images import ImageKind, Scaling, Window
from src.utils.grids import geometry_errors
from src.utils.reading import FileError
from tests.pair_files import AFFINE, itk_image, write_image

RNG = np.random.default_rng(0)
VOLUME = RNG.normal(size=(5, 4, 3)).astype(np.float32)


def kind(dims: int = 3, channels: int = 1, axis: str = "auto", key: str | None = None) -> ImageKind:
    return ImageKind(dims, channels, axis, key, "datamodule.channels")


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "NII.GZ", "npy", "npz", "h5", "tif", "mha", "mhd", "nrrd"])
def test_a_volume_of_each_format(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.b.{ending}"
    write_image(tmp_path / f"a.{ending.lower()}", VOLUME)
    (tmp_path / f"a.{ending.lower()}").rename(path)
    image = kind().read(path)
    assert image.values.dtype == np.float32 and np.array_equal(image.values, VOLUME[None])
    if ending.lower() in ("nii", "nii.gz", "mha", "mhd", "nrrd"):
        assert image.affine is not None
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    else:
        assert image.affine is None


COLOURS = RNG.integers(0, 256, (6, 5, 3)).astype(np.uint8)
FIRST = np.moveaxis(COLOURS, -1, 0)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.png", lambda path: Picture.fromarray(COLOURS).save(path)),
        ("a.tif", lambda path: tifffile.imwrite(path, COLOURS, photometric="rgb")),
        ("a.tif", lambda path: tifffile.imwrite(path, FIRST, imagej=True, metadata={"axes": "CYX"})),
        ("a.tif", lambda path: tifffile.imwrite(path, FIRST, photometric="minisblack")),
        ("a.npy", lambda path: np.save(path, FIRST)),
        ("a.nii", lambda path: nib.save(nib.Nifti1Image(COLOURS[:, :, None, None], AFFINE), path)),
        ("a.mha", lambda path: SimpleITK.WriteImage(SimpleITK.GetImageFromArray(COLOURS.swapaxes(0, 1), True), path)),
    ],
)
def test_channels_are_where_the_format_has_them(name: str, write: Any, tmp_path: Path) -> None:
    write(tmp_path / name)
    assert np.array_equal(kind(2, 3).read(tmp_path / name).values, FIRST)


@pytest.mark.parametrize(("page", "channels"), [(COLOURS[..., 0], 1), (COLOURS, 3)])
def test_pages_that_were_written_one_by_one_are_one_stack(page: np.ndarray, channels: int, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for i in range(4):
            file.write(page // (i + 1), photometric="rgb" if channels == 3 else "minisblack")
        file.write(page[::2, ::2], photometric="rgb" if channels == 3 else "minisblack")  # a small copy
    expected = np.stack([page // (i + 1) for i in range(4)])
    expected = np.moveaxis(expected, -1, 0) if channels == 3 else expected[None]
    assert np.array_equal(kind(3, channels).read(tmp_path / "a.tif").values, expected)


@pytest.mark.parametrize("picture", [COLOURS, COLOURS[..., 0]])
def test_a_picture_is_no_volume(picture: np.ndarray, tmp_path: Path) -> None:
    Picture.fromarray(picture).save(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match=r"expected 3 spatial axes \(datamodule.spatial_dims\), got a picture of shape"
    ):
        kind(3, 1).read(tmp_path / "a.png")


def test_a_photograph_is_read_as_viewers_show_it(tmp_path: Path) -> None:
    exif = Picture.Exif()
    exif[0x0112] = 8  # held upright
    Picture.fromarray(COLOURS).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(kind(2, 3).read(tmp_path / "a.png").values, np.rot90(FIRST, axes=(1, 2)))


def test_colours_of_16_bits_are_refused_where_they_would_lose_half_of_them(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(COLOURS.astype(np.uint16) * 16, isVector=True)
    SimpleITK.WriteImage(image, tmp_path / "a.png")
    with pytest.raises(FileError, match=r"its 3 channels of 16 bits would lose half of them; a TIFF or"):
        kind(2, 3).read(tmp_path / "a.png")


def test_the_configuration_can_say_where_the_channels_are(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", COLOURS)
    assert np.array_equal(kind(2, 3, "last").read(tmp_path / "a.npy").values, FIRST)
    nib.save(nib.Nifti1Image(FIRST, AFFINE), tmp_path / "a.nii")
    assert np.array_equal(kind(2, 3, "first").read(tmp_path / "a.nii").values, FIRST)


def test_channels_at_the_other_end_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", COLOURS)
    with pytest.raises(ValueError, match=r"channel_axis=auto\); datamodule\.channel_axis=last takes it$"):
        kind(2, 3).read(tmp_path / "a.npy")
    nib.save(nib.Nifti1Image(FIRST, AFFINE), tmp_path / "a.nii")
    for axis in ("auto", "last"):
        with pytest.raises(ValueError, match=rf"channel_axis={axis}\); datamodule\.channel_axis=first takes it$"):
            kind(2, 3, axis).read(tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"channel_axis=auto\)$"):
        kind(2, 2).read(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", COLOURS[..., 0])
    with pytest.raises(ValueError, match=r"expected 3 channels .*channel_axis=auto\)$"):
        kind(2, 3).read(tmp_path / "a.npy")


@pytest.mark.parametrize("mode", ["1", "P", "I;16", "L"])
def test_pictures_have_values_not_indices(mode: str, tmp_path: Path) -> None:
    grey = RNG.integers(0, 2, (4, 5)).astype(np.uint8) * 255
    factor = 100 if mode == "I;16" else 1
    picture = Picture.fromarray(grey.astype(np.uint16) * factor)
    picture = picture if mode == "I;16" else Picture.fromarray(grey).convert(mode)
    picture.save(tmp_path / "a.png")
    found = kind(2, 3 if mode == "P" else 1).read(tmp_path / "a.png").values
    assert all(np.array_equal(channel, grey.astype(float) * factor) for channel in found)


def test_a_key_names_one_of_several_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=VOLUME, two=2 * VOLUME)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/one"], file["two"] = VOLUME, 2 * VOLUME
    assert np.array_equal(kind(key="two").read(tmp_path / "a.npz").values[0], 2 * VOLUME)
    assert np.array_equal(kind(key="/group/one").read(tmp_path / "a.h5").values[0], VOLUME)
    for name in ("a.npz", "a.h5"):
        with pytest.raises(FileError, match=rf"{name}.*expected one array, got (group/)?one, two"):
            kind().read(tmp_path / name)
        with pytest.raises(FileError, match=rf"{name}.*expected an array 'three', got (group/)?one, two"):
            kind(key="three").read(tmp_path / name)


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "npy", "npz", "h5", "tif", "png", "mha", "nrrd"])
def test_a_file_that_was_cut_is_named(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    write_image(path, COLOURS if ending == "png" else RNG.normal(size=(30, 20, 10)).astype(np.float32))
    content = path.read_bytes()
    for length in (len(content) // 2, 3, 0):
        path.write_bytes(content[:length])
        with pytest.raises(
            FileError, match=rf"expected a whole (\.{ending} image|NIfTI file), got '.*a\.{ending}'"
        ) as caught:
            kind(2 if ending == "png" else 3, 3 if ending == "png" else 1).read(path)
        assert not re.search(r"\n|pickle|IndexError|/ITK/|0x|No such file", str(caught.value)), caught.value


def test_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("?")
    with pytest.raises(FileError, match=r"expected an image file \(.*\.nii.*\), got .*a\.txt.*another ending"):
        kind().read(tmp_path / "a.txt")
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    with pytest.raises(FileError, match=r"a\.npy.*Python objects"):
        kind().read(tmp_path / "a.npy")


def test_gzip_is_told_by_the_content(tmp_path: Path) -> None:
    image = nib.Nifti2Image(VOLUME, AFFINE)
    (tmp_path / "a.nii").write_bytes(gzip.compress(image.to_bytes()))
    (tmp_path / "b.nii.gz").write_bytes(image.to_bytes())
    for path in tmp_path.iterdir():
        assert np.array_equal(kind().read(path).values[0], VOLUME)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((5, 4)), r"expected 3 spatial axes \(datamodule\.spatial_dims\).*got shape \(5, 4\)"),
        (np.zeros((2, 5, 4, 3)), r"expected 1 channels \(datamodule\.channels\).*got 2 channels in shape \(2, 5"),
        (np.zeros((5, 0, 3)), r"got shape \(5, 0, 3\)"),
        (np.zeros((5, 4, 3), complex), "expected integers or floating-point numbers, got complex128"),
        (np.where(VOLUME > 1, np.nan, VOLUME), r"expected finite values, got \d+ infinite or NaN"),
        (np.full((5, 4, 3), 1e300), "got 60 infinite or NaN"),
    ],
)
def test_values_that_are_no_image_are_refused(values: Any, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ValueError, match=message):
        kind().read(tmp_path / "a.npy")


def test_a_window_is_a_line_through_0_and_1() -> None:
    values = np.array([-1000.0, 0.0, 1000.0], np.float32)
    window, other = Scaling((-1000, 1000), (0, 10), (0, 100)).windows(values)
    assert window.scaled(values).tolist() == [0, 0.5, 1] and other == Window(0, 10)
    assert window.unscaled(window.scaled(values)).tolist() == values.tolist()


def test_without_a_window_an_input_has_its_own_and_the_target_shares_it() -> None:
    values = RNG.normal(5, 3, (1, 20, 20)).astype(np.float32)
    window, other = Scaling(None, None, (1, 99)).windows(values)
    assert window == other
    np.testing.assert_allclose(np.percentile(window.scaled(values), (1, 99)), (0, 1), atol=1e-6)
    with pytest.raises(ValueError, match=r"expected values that differ, got 2 .*datamodule\.window"):
        Scaling(None, None, (1, 99)).windows(np.full((1, 5, 5), 2, np.float32))


def test_itk_and_nifti_agree_about_a_volume(tmp_path: Path) -> None:
    """ITK writes the same image in both of its formats."""
    for name in ("a.mha", "b.nii.gz"):
        SimpleITK.WriteImage(itk_image(VOLUME), tmp_path / name)
    one, other = (kind().read(tmp_path / name) for name in ("a.mha", "b.nii.gz"))
    assert np.array_equal(one.values, other.values) and list(geometry_errors(other.grid("b"), one.grid("a"))) == []
