"""Measured scans: from counts to line integrals, and the files they come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.ct.scan import Scan, even_angles
from src.ct.scan_files import read_scan

VIEWS, ROWS, PIXELS = 5, 3, 7
RNG = np.random.default_rng(0)
INTEGRALS = RNG.uniform(0, 2, (VIEWS, ROWS, PIXELS))
FLATS = RNG.uniform(900, 1100, (4, ROWS, PIXELS))
DARKS = RNG.uniform(5, 15, (2, ROWS, PIXELS))
COUNTS = DARKS.mean(0) + (FLATS.mean(0) - DARKS.mean(0)) * np.exp(-INTEGRALS)


def scan(counts: Any = COUNTS, **fields: Any) -> Scan:
    return Scan(counts, **{"angles_rad": np.arange(VIEWS) * 0.5, "flats": FLATS, "darks": DARKS} | fields)


def test_line_integrals_are_those_that_made_the_counts() -> None:
    np.testing.assert_allclose(scan().line_integrals(slice(None)), INTEGRALS.transpose(1, 0, 2), atol=1e-5)
    np.testing.assert_allclose(scan().line_integrals(slice(1, 2)), INTEGRALS.transpose(1, 0, 2)[1:2], atol=1e-5)
    as_they_are = Scan(INTEGRALS, np.arange(VIEWS)).line_integrals(slice(0, 2))
    np.testing.assert_allclose(as_they_are, INTEGRALS.transpose(1, 0, 2)[:2], rtol=1e-6)


def test_counts_without_a_logarithm_are_named_or_raised() -> None:
    counts = COUNTS.copy()
    counts[0, 1, 2:4] = 0
    with pytest.raises(ValueError, match=r"got 2 of 70 that are not, in row 1 of the scan; min_transmission=0"):
        scan(counts).line_integrals(slice(1, 3))
    raised = scan(counts).line_integrals(slice(1, 3), min_transmission=0.001)
    np.testing.assert_allclose(raised[0, 0, 2:4], -np.log(0.001), rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"counts": COUNTS[0]}, r"expected projections of shape \(views, rows, pixels\), got \(3, 7\)"),
        ({"angles_rad": np.arange(4)}, r"expected a finite angle for each of 5 views, got 4 angles for the scan"),
        ({"angles_rad": np.full(5, np.nan)}, "expected a finite angle for each of 5 views, got 5 that are NaN"),
        ({"flats": FLATS[..., :5]}, r"expected flats of shape \(n, 3, 7\), got \(4, 3, 5\)"),
        ({"darks": DARKS[:0]}, r"expected darks of shape \(n, 3, 7\), got \(0, 3, 7\)"),
        ({"flats": None}, "expected flats beside the darks, got none"),
        (
            {"counts": COUNTS.astype(np.uint16), "flats": None, "darks": None},
            "expected flats for the counts of the scan, which are uint16, got none; line integrals are floating-point",
        ),
        ({"counts": COUNTS.astype(complex)}, "expected counts that are real numbers, got complex128 in the scan"),
    ],
)
def test_parts_that_do_not_fit_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scan(**fields)


def test_values_that_cannot_be_are_named() -> None:
    with pytest.raises(ValueError, match=r"got 21 of 21 pixels that are not, in rows 0, 1, 2 .* darks exchanged"):
        scan(flats=DARKS, darks=FLATS).line_integrals(slice(None), min_transmission=0.1)
    for name, values in {"counts": COUNTS, "flats": FLATS, "darks": DARKS}.items():
        broken = values.copy()
        broken[1, 2, 0] = np.nan
        with pytest.raises(ValueError, match=f"expected finite {name}, got 1 that are NaN or infinite, in row 2 of"):
            scan(**{name: broken}).line_integrals(slice(1, 3), min_transmission=0.1)


def test_dead_pixels_get_the_shares_between_their_neighbours() -> None:
    flats, counts = FLATS.copy(), COUNTS.copy()
    flats[:, 1, 3:5] = counts[:, 1, 3:5] = 0
    with pytest.raises(ValueError, match=r"got 2 of 21 pixels that are not, in row 1 .* min_transmission=0.001"):
        scan(counts, flats=flats).line_integrals(slice(None))
    found = np.exp(-scan(counts, flats=flats).line_integrals(slice(None), min_transmission=0.001))
    expected = np.exp(-INTEGRALS.transpose(1, 0, 2))
    expected[1, :, 3:5] = np.linspace(expected[1, :, 2], expected[1, :, 5], 4, axis=-1)[:, 1:3]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def write_data_exchange(path: Path, **datasets: Any) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[f"exchange/{name}"] = values
    return path


def test_data_exchange_is_read(tmp_path: Path) -> None:
    theta = np.array([0, 10.0, 30, 70, 180])
    path = write_data_exchange(tmp_path / "scan.h5", data=COUNTS, data_white=FLATS, data_dark=DARKS, theta=theta)
    found = read_scan(path)
    np.testing.assert_allclose(found.angles_rad, np.deg2rad(theta))
    np.testing.assert_allclose(found.line_integrals(slice(None)), scan().line_integrals(slice(None)), rtol=1e-6)
    np.testing.assert_allclose(read_scan(path, angles_deg=(0, 90)).angles_rad, even_angles(VIEWS, (0, 90)))


@pytest.mark.parametrize("length", [0, 4, 8, 200])
def test_the_beginning_of_a_tiff_file_is_refused_by_name(length: int, tmp_path: Path) -> None:
    import tifffile

    whole = tmp_path / "whole.tif"
    tifffile.imwrite(whole, np.zeros((3, ROWS, PIXELS), np.float32), photometric="minisblack")
    (tmp_path / "scan.tif").write_bytes(whole.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"expected a TIFF file, got '.*scan\.tif'"):
        read_scan(tmp_path / "scan.tif")


def test_arrays_and_tiff_stacks_are_read(tmp_path: Path) -> None:
    import tifffile

    for name, values in {"counts": COUNTS, "flats": FLATS, "darks": DARKS}.items():
        np.save(tmp_path / f"{name}.npy", values)
        tifffile.imwrite(tmp_path / f"{name}.tif", values.astype(np.float32), photometric="minisblack")
        (tmp_path / name).mkdir()
        for i, image in enumerate(values):
            tifffile.imwrite(tmp_path / name / f"{i:03}.tiff", image.astype(np.float32))
    np.savetxt(tmp_path / "angles.txt", np.arange(VIEWS) * 10)
    for suffix in (".npy", ".tif", ""):
        counts, flats, darks = (tmp_path / f"{name}{suffix}" for name in ("counts", "flats", "darks"))
        found = read_scan(counts, flats=flats, darks=darks, angles_deg=tmp_path / "angles.txt")
        np.testing.assert_allclose(found.angles_rad, np.deg2rad(np.arange(VIEWS) * 10))
        np.testing.assert_allclose(found.line_integrals(slice(None)), scan().line_integrals(slice(None)), atol=1e-5)


def test_views_are_in_the_order_of_the_numbers_in_their_names(tmp_path: Path) -> None:
    import tifffile

    for i in range(12):
        tifffile.imwrite(tmp_path / f"view_{i}.tif", np.full((ROWS, PIXELS), i, np.float32))
    found = read_scan(tmp_path).line_integrals(slice(0, 1))
    assert found[0, :, 0].tolist() == list(range(12))


def test_pages_that_were_written_one_by_one_are_views(tmp_path: Path) -> None:
    import tifffile

    with tifffile.TiffWriter(tmp_path / "scan.tif") as file:
        for i in range(4):
            file.write(np.full((ROWS, PIXELS), i, np.float32))
    assert read_scan(tmp_path / "scan.tif").line_integrals(slice(0, 1))[0, :, 0].tolist() == list(range(4))


def test_fields_have_files_of_their_own(tmp_path: Path) -> None:
    counts = write_data_exchange(tmp_path / "counts.h5", data=COUNTS)
    flats = write_data_exchange(tmp_path / "flats.h5", data_white=FLATS.mean(0))  # one image
    darks = write_data_exchange(tmp_path / "darks.h5", data=DARKS)
    found = read_scan(counts, flats=flats, darks=darks)
    np.testing.assert_allclose(found.line_integrals(slice(None)), scan().line_integrals(slice(None)), rtol=1e-4)


def test_angles_in_radians_are_read_or_named(tmp_path: Path) -> None:
    import h5py

    counts, theta = RNG.uniform(0, 1, (31, 1, 7)), np.linspace(0, np.pi, 31)
    path = write_data_exchange(tmp_path / "scan.h5", data=counts, theta=theta)
    with pytest.raises(ValueError, match=r"in degrees, got 31 from 0 to 3.142 in .*scan.h5', which seem to be radians"):
        read_scan(path)
    with h5py.File(path, "r+") as file:
        file["exchange/theta"].attrs["units"] = "radians"
    np.testing.assert_allclose(read_scan(path).angles_rad, theta)


def test_files_that_are_no_scans_are_named(tmp_path: Path) -> None:
    for name in ("scan.h5", "scan.npy", "scan.tif"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match=f"expected an? .*{name}"):
            read_scan(tmp_path / name)
    with pytest.raises(ValueError, match=r"expected a dataset /exchange/data .* got /exchange/other"):
        read_scan(write_data_exchange(tmp_path / "other.h5", other=COUNTS))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"got .*gone\.h5', which does not exist"):
        read_scan(tmp_path / "gone.h5")
    with pytest.raises(ValueError, match=r"expected TIFF files in .*, got none"):
        read_scan(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"got .*scan\.jpg"):
        read_scan(tmp_path / "scan.jpg")
    np.save(tmp_path / "counts.npy", COUNTS)
    with pytest.raises(ValueError, match="expected a file of 5 angles in degrees, got"):
        read_scan(tmp_path / "counts.npy", angles_deg=tmp_path / "scan.tif")
