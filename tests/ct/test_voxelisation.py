import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from src.ct.foam import FoamPhantom, FoamSpec, draw_foam
from src.ct.geometry import grid_centres
from src.ct.voxelisation import LINES_PER_BATCH, downsample, voxelise


@pytest.fixture(scope="module")
def phantom():
    return draw_foam(FoamSpec(num_balls=(20, 20), num_trial_points=5_000), np.random.default_rng(0))


def test_every_sample_is_inside_or_outside(phantom):
    size = 40
    z, y, x = np.meshgrid(*[grid_centres(size)] * 3, indexing="ij")
    expected = (x**2 + y**2 <= phantom.radius**2) & (np.abs(z) <= phantom.half_height)
    for (cx, cy, cz), radius in zip(phantom.centres, phantom.radii, strict=True):
        expected &= (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 > radius**2
    np.testing.assert_array_equal(voxelise(phantom, size, oversampling=1), expected)


def test_mass_is_conserved(phantom):
    size = 32
    # caps between two fine slices, so that point sampling does not round the height
    phantom = dataclasses.replace(phantom, half_height=0.75)
    volume = voxelise(phantom, size)
    expected = np.pi * phantom.radius**2 * 1.5 - 4 / 3 * np.pi * (phantom.radii**3).sum()
    assert volume.sum() * (2 / size) ** 3 == pytest.approx(expected, rel=0.005)
    one_ball = FoamPhantom(1.0, 1.0, np.array([[0.1, 0.2, -0.1]]), np.array([0.5]))
    hole = voxelise(FoamPhantom(1.0, 1.0, np.empty((0, 3)), np.empty(0)), size) - voxelise(one_ball, size)
    assert hole.sum() * (2 / size) ** 3 == pytest.approx(4 / 3 * np.pi * 0.125, rel=0.003)


def test_volume_is_ordered_z_y_x():
    phantom = FoamPhantom(1.0, 1.0, np.array([[0.0, 0.3, -0.6]]), np.array([0.2]))
    volume = voxelise(phantom, 20)
    assert volume[4, 13, 10] < 0.1 and volume.dtype == np.float32
    assert volume[10, 13, 4] > 0.9


@pytest.mark.parametrize("oversampling", [1, 2, 3, 5])
def test_voxels_are_means_of_point_samples(phantom, oversampling):
    fine = torch.from_numpy(voxelise(phantom, 12 * oversampling, oversampling=1))
    np.testing.assert_allclose(voxelise(phantom, 12, oversampling), downsample(fine, oversampling), atol=1e-6)


def test_batches_do_not_change_the_result(phantom, monkeypatch):
    whole = voxelise(phantom, 12)
    monkeypatch.setitem(LINES_PER_BATCH, "cpu", 1)
    np.testing.assert_array_equal(voxelise(phantom, 12), whole)


def test_a_ball_that_reaches_out_of_the_cube_is_cut_off_there():
    ball = FoamPhantom(1.0, 1.0, np.array([[0.8, -0.7, 0.9]]), np.array([0.4]))
    hole = voxelise(FoamPhantom(1.0, 1.0, np.empty((0, 3)), np.empty(0)), 20, 1) - voxelise(ball, 20, 1)
    z, y, x = np.meshgrid(*[grid_centres(20)] * 3, indexing="ij")
    np.testing.assert_array_equal(hole, (x - 0.8) ** 2 + (y + 0.7) ** 2 + (z - 0.9) ** 2 <= 0.4**2)


def test_halving_is_trilinear_interpolation():
    volume = torch.from_numpy(np.random.default_rng(0).random((8, 6, 4), dtype=np.float32))
    expected = functional.interpolate(volume[None, None], scale_factor=0.5, mode="trilinear")
    torch.testing.assert_close(downsample(volume, 2), expected[0, 0], rtol=1e-6, atol=0)


def test_downsampling_twice_by_two_is_once_by_four(phantom):
    fine = torch.from_numpy(voxelise(phantom, 32, oversampling=1))
    np.testing.assert_allclose(downsample(downsample(fine, 2), 2), voxelise(phantom, 8), atol=1e-6)
    assert downsample(fine, 1) is fine


def test_bad_values_are_named(phantom):
    with pytest.raises(ValueError, match=r"divisible by a factor >= 1, got \(5, 4, 4\) and 2"):
        downsample(torch.zeros(5, 4, 4), 2)
    with pytest.raises(ValueError, match="size >= 1, got 0"):
        voxelise(phantom, 0)
