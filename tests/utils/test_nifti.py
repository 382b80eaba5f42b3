"""NIfTI files that are written and read again."""

from __future__ import annotations

import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from src.utils.nifti import GZIP_MAGIC, read_volume, write_volume

AFFINE = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3.0, 11], [0, 0, 0, 1]])


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_volume_is_the_same_file_at_any_time(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    write_volume(tmp_path / name, voxels, AFFINE)
    first = (tmp_path / name).read_bytes()
    assert first.startswith(GZIP_MAGIC) == name.endswith(".gz")
    found = read_volume(tmp_path / name)
    assert np.array_equal(found.voxels, voxels) and np.array_equal(found.affine, AFFINE)
    assert nib.load(tmp_path / name).header.get_xyzt_units()[0] == "mm"
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write_volume(tmp_path / name, voxels, AFFINE)
    assert (tmp_path / name).read_bytes() == first and [path.name for path in tmp_path.iterdir()] == [name]
