"""Images are written like other files: read again, they have the same layout, place, header and type of numbers."""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from src.utils.image_files import read_stored
from src.utils.image_writing import grey_ending, output_name, write_grey, write_stored
from tests.pair_files import AFFINE, write_image

RNG = np.random.default_rng(0)
VALUES = RNG.random((3, 6, 5, 4), np.float32)


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "npy", "npz", "h5", "mha", "nrrd"])
def test_channels_lie_where_the_source_or_the_format_has_them(tmp_path: Path, ending: str) -> None:
    source, path = tmp_path / f"source.{ending}", tmp_path / "new" / f"a.{ending}"
    write_image(source, VALUES[0])
    write_stored(path, VALUES, source)
    stored = read_stored(path)
    assert np.array_equal(np.moveaxis(stored.values, stored.channel_axis, 0), VALUES)
    write_stored(path, VALUES, source, channel_axis=-1)
    assert ending in ("mha", "nrrd") or np.array_equal(np.moveaxis(read_stored(path).values, -1, 0), VALUES)
    write_stored(path, VALUES[:1], source)
    assert np.array_equal(read_stored(path).values, VALUES[0])
    assert not list(path.parent.glob(".*"))


def test_a_header_stays_but_for_type_and_scale(tmp_path: Path) -> None:
    image = nib.Nifti1Image(RNG.integers(0, 99, (6, 5, 4), np.int16), AFFINE)
    image.header.set_xyzt_units("mm")
    image.set_qform(AFFINE, code=1)
    image.set_sform(AFFINE, code=2)
    image.header["descrip"] = b"scanner 7"
    image.header.set_slope_inter(2.0, 10.0)
    nib.save(image, tmp_path / "source.nii.gz")
    write_stored(tmp_path / "a.nii.gz", VALUES[:1], tmp_path / "source.nii.gz")
    header = nib.load(tmp_path / "a.nii.gz").header  # type: ignore[attr-defined]
    assert header.get_data_dtype() == np.float32 and header["descrip"] == b"scanner 7"
    assert header["qform_code"] == 1 and header["sform_code"] == 2 and np.allclose(header.get_sform(), AFFINE)
    assert np.array_equal(read_stored(tmp_path / "a.nii.gz").values, VALUES[0])


def test_an_array_keeps_its_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "source.npz", noisy=VALUES, clean=VALUES)
    write_stored(tmp_path / "a.npz", VALUES, tmp_path / "source.npz", 0, "noisy")
    with np.load(tmp_path / "a.npz") as file:
        assert file.files == ["noisy"]
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["scans/noisy"], file["scans/clean"] = VALUES, VALUES
    write_stored(tmp_path / "a.h5", VALUES, tmp_path / "source.h5", 0, "/scans/noisy")
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["scans/noisy"][()], VALUES)  # type: ignore[index]


def test_itk_keeps_spacing_origin_and_direction_and_mhd_becomes_one_file(tmp_path: Path) -> None:
    write_image(tmp_path / "source.mhd", VALUES[0])
    name = output_name("source.mhd")
    write_stored(tmp_path / "out" / name, VALUES[:1], tmp_path / "source.mhd")
    source, written = (SimpleITK.ReadImage(str(path)) for path in (tmp_path / "source.mhd", tmp_path / "out" / name))
    for read in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(written, read)(), getattr(source, read)())


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_picture_gets_the_nearest_grey_values_of_its_type(tmp_path: Path, kind: type) -> None:
    most = np.iinfo(kind).max
    Image.fromarray(RNG.integers(most, size=(5, 4)).astype(kind)).save(tmp_path / "source.png")
    values = np.array([[[-3.0, 0.4, 0.6, most + 9.0]]])
    write_stored(tmp_path / "a.png", values, tmp_path / "source.png")
    stored = read_stored(tmp_path / "a.png").values
    assert stored.tolist() == [[0, 0, 1, most]]


def test_colours_stay_colours(tmp_path: Path) -> None:
    colours = RNG.integers(256, size=(5, 4, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "source.png")
    tifffile.imwrite(tmp_path / "source.tif", colours, photometric="rgb", resolution=(300, 200), resolutionunit=2)
    values = np.moveaxis(colours, -1, 0).astype(np.float32)
    write_stored(tmp_path / "a.png", values, tmp_path / "source.png", -1)
    assert np.array_equal(read_stored(tmp_path / "a.png").values, colours)
    write_stored(tmp_path / "a.tif", values, tmp_path / "source.tif", 0)
    assert np.array_equal(read_stored(tmp_path / "a.tif").values, values)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages.first
        assert page.photometric.name == "RGB" and page.resolution == (300, 200)  # type: ignore[union-attr]


def test_tiff_stands_for_a_picture(tmp_path: Path) -> None:
    colours = RNG.integers(256, size=(5, 4, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "source.png")
    values = RNG.random((3, 5, 4), np.float32)
    write_stored(tmp_path / "a.tif", values, tmp_path / "source.png", -1)
    assert np.array_equal(read_stored(tmp_path / "a.tif").values, values)


def test_a_picture_has_at_most_four_channels(tmp_path: Path) -> None:
    write_image(tmp_path / "source.png", np.zeros((5, 4), np.uint8))
    with pytest.raises(ValueError, match=r"expected 2 spatial axes and 1 to 4 channels for \.png, got shape \(4, 5, 6"):
        write_stored(tmp_path / "a.png", np.zeros((7, 4, 5, 6)), tmp_path / "source.png")


@pytest.mark.parametrize(
    ("shape", "num_bins", "ending"),
    [
        *(((1, 5, 4), 256, ".png"), ((3, 5, 4), 32, ".png"), ((1, 5, 4), 4096, ".png"), ((3, 5, 4), 4096, ".npy")),
        *(((2, 5, 4), 256, ".npy"), ((1, 5, 4, 3), 256, ".npy"), ((1, 5, 4), 2**17, ".npy")),
    ],
)
def test_grey_values_are_the_integers_below_in_every_format(
    tmp_path: Path, shape: tuple[int, ...], num_bins: int, ending: str
) -> None:
    assert grey_ending(shape, num_bins) == ending
    whole = RNG.integers(num_bins, size=shape)
    write_grey(tmp_path / f"a{ending}", np.where(whole == 0, -3.0, whole + 0.9), num_bins)
    stored = read_stored(tmp_path / f"a{ending}").values
    if ending == ".png":
        stored = stored[None] if stored.ndim == 2 else np.moveaxis(stored, -1, 0)
    assert np.array_equal(stored, whole)
