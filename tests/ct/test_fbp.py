import numpy as np
import pytest
import torch
from skimage.data import shepp_logan_phantom
from skimage.transform import iradon, radon, resize

from src.ct.fbp import FILTERS, backproject, filter_views, filtered_backprojection
from src.ct.foam import FoamPhantom
from src.ct.geometry import DETECTOR_HALF_WIDTH, ParallelBeam, grid_centres
from src.ct.projection import project

SIZE = 129  # odd, so that scikit-image's grid is centred where ours is
NO_BALLS = (np.empty((0, 3)), np.empty(0))


def disc():
    centres = grid_centres(SIZE)
    return (centres[:, None] ** 2 + centres**2 <= 0.6**2).astype(float)


def shepp_logan():
    return resize(shepp_logan_phantom(), (SIZE, SIZE), anti_aliasing=True)


@pytest.mark.parametrize("filter_name", FILTERS)
@pytest.mark.parametrize("image", [disc, shepp_logan])
def test_slice_agrees_with_iradon(image, filter_name):
    angles_deg = np.arange(90) * 2.0
    sinogram = radon(image(), angles_deg, circle=True)  # (s, views)
    skimage_filter = None if filter_name == "none" else filter_name
    expected = iradon(sinogram, angles_deg, filter_name=skimage_filter, circle=True)
    if filter_name == "none":
        expected *= 2  # its π/(2 V) has the factor 1/2 of the ramp |f|/2, which is not there

    geometry = ParallelBeam((0, 0, 1), num_views=90, detector_size=SIZE)
    # both sides in pixels: a line integral in pixels is pixel_size times as long, a filter 1/pixel_size as high
    rows = torch.from_numpy(sinogram.T.copy())[:, None].expand(-1, SIZE, -1).contiguous()
    coordinates = grid_centres(SIZE, DETECTOR_HALF_WIDTH)
    views = filter_views(rows, 1.0, filter_name)
    result = backproject(views, geometry, np.zeros(1), coordinates[::-1].copy(), coordinates)[0].numpy()

    inside = grid_centres(SIZE)[:, None] ** 2 + grid_centres(SIZE) ** 2 < 0.95
    error = np.sqrt(np.mean((result - expected)[inside] ** 2))
    assert error < 1e-3 * np.ptp(expected[inside])


@pytest.mark.parametrize("axis", [(0, 0, 1), (1, 1, 1), (0.3, -1, 0.2)])
def test_a_cylinder_of_attenuation_one_reconstructs_to_one(axis):
    geometry = ParallelBeam(axis, num_views=90, detector_size=96)
    sinogram = torch.from_numpy(project(FoamPhantom(0.7, 0.7, *NO_BALLS), geometry, oversampling=2)).float()
    volume = filtered_backprojection(sinogram, geometry, 48)
    centre = volume[16:32, 16:32, 16:32]
    assert float(centre.mean()) == pytest.approx(1, abs=2e-3)
    assert abs(float(volume[:4].mean())) < 5e-3


def test_oblique_reconstruction_shows_balls_where_they_are():
    centres = np.array([[0.35, 0.1, -0.2], [-0.3, -0.25, 0.15]])
    phantom = FoamPhantom(0.8, 0.6, centres, np.array([0.2, 0.15]))
    geometry = ParallelBeam((1, 0.9, 1.1), num_views=120, detector_size=110)
    sinogram = torch.from_numpy(project(phantom, geometry, oversampling=2)).float()
    volume = filtered_backprojection(sinogram, geometry, 64).numpy()
    for x, y, z in centres:
        iz, iy, ix = (round((u + 1) * 32 - 0.5) for u in (z, y, x))
        assert abs(volume[iz, iy, ix]) < 0.1
        assert volume[-1 - iz, iy, ix] > 0.8  # the mirrored place is material


def test_slabs_do_not_change_the_result(monkeypatch):
    geometry = ParallelBeam((1, 1, 1), num_views=3, detector_size=20)
    views = torch.randn(3, 20, 20, generator=torch.Generator().manual_seed(0))
    planes = grid_centres(9)
    whole = backproject(views, geometry, planes, planes, planes)
    monkeypatch.setattr("src.ct.fbp.MAX_VOXELS_PER_SLAB", 2 * 81)
    torch.testing.assert_close(backproject(views, geometry, planes, planes, planes), whole, rtol=0, atol=1e-6)


def test_backprojection_at_a_point_is_the_mean_of_its_pixels():
    geometry = ParallelBeam((0.2, 0.5, 1), num_views=4, detector_size=31)
    views = torch.randn(4, 31, 31, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    point = np.array([0.21, -0.43, 0.37])
    expected = 0.0
    for view, e in zip(views.numpy(), geometry.detector_directions, strict=True):
        s, t = ((point @ u + DETECTOR_HALF_WIDTH) / geometry.pixel_size - 0.5 for u in (e, geometry.axis))
        j, i = int(s), int(t)
        weights = np.outer([1 - (t - i), t - i], [1 - (s - j), s - j])
        expected += (weights * view[i : i + 2, j : j + 2]).sum() * np.pi / 4
    x, y, z = point[:, None]
    assert backproject(views, geometry, z, y, x).item() == pytest.approx(expected, rel=1e-10)


def test_ramp_kernel_is_the_band_limited_one():
    impulse = torch.zeros(9, dtype=torch.float64)
    impulse[4] = 1
    odd = -1 / np.pi**2
    expected = torch.tensor([0, odd / 9, 0, odd, 0.25, odd, 0, odd / 9, 0], dtype=torch.float64) / 0.5
    torch.testing.assert_close(filter_views(impulse, 0.5), expected, rtol=0, atol=1e-14)


def test_none_leaves_the_views_as_they_are():
    views = torch.randn(2, 3, 5)
    torch.testing.assert_close(filter_views(views, 0.1, "none"), views, rtol=0, atol=0)


@pytest.mark.gpu
def test_gpu_agrees_with_cpu():
    geometry = ParallelBeam((1, 1, 1), num_views=20, detector_size=56)
    sinogram = torch.from_numpy(project(FoamPhantom(0.7, 0.7, *NO_BALLS), geometry)).float()
    on_cpu = filtered_backprojection(sinogram, geometry, 32)
    on_gpu = filtered_backprojection(sinogram.cuda(), geometry, 32)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=1e-4)


def test_bad_values_are_named():
    geometry = ParallelBeam((0, 0, 1), num_views=2, detector_size=8)
    with pytest.raises(ValueError, match=r"one of ramp, .*none, got 'rampp'"):
        filtered_backprojection(torch.zeros(2, 8, 8), geometry, 4, "rampp")
    with pytest.raises(ValueError, match=r"shape \(2, 8, 8\), got \(3, 8, 8\)"):
        filtered_backprojection(torch.zeros(3, 8, 8), geometry, 4)
    with pytest.raises(ValueError, match="size >= 1, got 0"):
        filtered_backprojection(torch.zeros(2, 8, 8), geometry, 0)
