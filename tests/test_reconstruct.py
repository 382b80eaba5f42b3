"""reconstruct.py: from the files of a scan to a volume."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from skimage.transform import iradon

import reconstruct
from tests.ct.test_scan import write_data_exchange
from tests.ct.test_slices import SIZE, sinogram

ROWS = 3


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["reconstruct.py", *arguments])
    reconstruct.main()


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photon counts without noise behind a phantom that absorbs up to about 63 % of the beam, the axis off centre."""
    integrals = np.pad(sinogram(0, 180, 181).numpy() / SIZE, ((0, 0), (8, 0)))
    flats = np.full((2, ROWS, SIZE + 8), 50_000.0)
    darks = np.full((3, ROWS, SIZE + 8), 100.0)
    counts = darks[0] + (flats - darks[:2])[0] * np.exp(-integrals[:, None].repeat(ROWS, 1))
    theta = np.linspace(0, 180, 181)
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    return write_data_exchange(path, data=counts, data_white=flats, data_dark=darks, theta=theta)


def test_a_scan_becomes_the_volume_of_scikit_image(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    expected = iradon(sinogram().numpy().T / SIZE, np.arange(180.0), filter_name="hann") / 0.5
    for name in ("volume.npy", "volume.tif", "volume.nii.gz", "volume.nii"):
        output = tmp_path / name
        arguments = [f"scan={scan}", f"output={output}", "filter=hann", f"size={SIZE}", "pixel_size_mm=0.5"]
        run(*arguments, "rows=1,2", monkeypatch=monkeypatch)
        if name.endswith(".npy"):
            volume = np.load(output)
        elif name.endswith(".tif"):
            volume = tifffile.imread(output)
        else:
            image = nib.load(output)
            assert image.header.get_zooms() == (0.5, 0.5, 0.5)
            volume = image.get_fdata().transpose(2, 1, 0)
        assert volume.shape == (2, SIZE, SIZE) and volume.dtype in (np.float32, np.float64)
        disc = np.hypot(*np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]) < 0.9
        difference = (volume[0] - expected)[disc]
        assert np.sqrt((difference**2).mean()) < 0.01 * np.ptp(expected)
    assert "centre of rotation: 71.0 pixels, found in row 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one scan=<file or folder>, got 0"),
        (["output=volume.jpg"], "expected output=<file> ending with .npy"),
        (["rows=1,3"], "expected rows=<first>,<last> from 0 to 2, got rows=1,3"),
        (["rows=2"], "expected rows=<first>,<last> from 0 to 2, got rows=2"),
        (["angles=0,x"], "expected angles=<first>,<last> in degrees, got 0,x"),
        (["angles=1,2,3"], "expected angles=<file> or angles=<first>,<last>, got 3 values"),
        (["centre=middle"], "expected centre to be a number, got 'middle'"),
        (["centre=500"], "expected the centre of rotation between 0 and 134 pixels, got 500.0"),
        (["filter=hahn"], "expected filter to be one of ramp"),
        (["pixel_size_mm=0"], "expected a positive pixel_size_mm, got 0.0"),
        (["row=1"], "expected options of reconstruct.py, got 'row=1'"),
        (["min_transmission=-1"], "expected min_transmission between 0 and 1, got -1.0"),
        (["device=gpu0"], "expected device as a device of this machine, got 'gpu0'"),
        (["output=/dev/null/volume.npy"], "expected output=<file> in a folder that can be written, got /dev/null/vol"),
        (["angles=0,90"], "expected views over at least half a turn in ascending order, got 181 from 0.0° to 90.0°"),
    ],
)
def test_what_does_not_fit_is_one_message(
    arguments: list[str],
    message: str,
    scan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    given = {"scan": f"scan={scan}", "output": f"output={tmp_path / 'volume.npy'}"} if arguments else {"output": "x=1"}
    given |= {argument.partition("=")[0]: argument for argument in arguments}
    with pytest.raises(SystemExit) as stopped:
        run(*given.values(), monkeypatch=monkeypatch)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_problems_of_all_rows_are_named_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    counts = np.full((9, 40, 8), 1000, np.uint16)
    counts[3, 2, 1] = counts[4, 35, 1:3] = 0
    path = write_data_exchange(tmp_path / "scan.h5", data=counts, data_white=counts[:1], theta=np.linspace(0, 180, 9))
    with pytest.raises(SystemExit):
        run(f"scan={path}", f"output={tmp_path / 'volume.npy'}", monkeypatch=monkeypatch)
    message = capsys.readouterr().err
    assert "got 1 of 1152 that are not, in row 2 of" in message and "got 2 of 576 that are not, in row 35 of" in message
    assert not (tmp_path / "volume.npy").exists()


def test_slices_can_be_files_of_their_own(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("volume.npy", "slices/*.tif", "slices/*.nii.gz"):
        run(f"scan={scan}", f"output={tmp_path / name}", "rows=1,2", "centre=71", monkeypatch=monkeypatch)
    for row, expected in enumerate(np.load(tmp_path / "volume.npy"), start=1):
        assert np.array_equal(tifffile.imread(tmp_path / f"slices/{row:04d}.tif"), expected)
        assert np.array_equal(nib.load(tmp_path / f"slices/{row:04d}.nii.gz").get_fdata().T, expected)
    assert len(list((tmp_path / "slices").iterdir())) == 4
