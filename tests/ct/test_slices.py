"""Slices of measured scans against scikit-image, ASTRA and known centres."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.data import shepp_logan_phantom
from skimage.transform import iradon, radon, resize

from src.ct.centre import find_centre
from src.ct.fbp import WINDOWS
from src.ct.slices import reconstruct_slices, view_weights

SIZE = 127
DISC = np.hypot(*np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]) < 0.95
ANGLES_DEG = np.arange(180.0)


@cache
def image() -> NDArray[np.float64]:
    moved = np.roll(resize(shepp_logan_phantom(), (SIZE, SIZE)), (6, -4), (0, 1))
    return moved * DISC


@cache
def sinogram(first: float = 0, last: float = 179, num_views: int = 180) -> torch.Tensor:
    """(views, pixels), in double precision."""
    return torch.tensor(radon(image(), np.linspace(first, last, num_views)).T)


def rmse(found: NDArray, expected: NDArray) -> float:
    """Within the disc, relative to the range of the values."""
    difference = (found - expected)[DISC]
    return float(np.sqrt((difference**2).mean()) / np.ptp(expected[DISC]))


@pytest.mark.parametrize("name", WINDOWS)
def test_equals_scikit_image_with_every_filter(name: str) -> None:
    expected = iradon(sinogram().numpy().T, ANGLES_DEG, filter_name=name)
    found = reconstruct_slices(sinogram()[None], np.deg2rad(ANGLES_DEG), filter_name=name)[0]
    assert rmse(found.numpy(), expected) < 1e-4  # hamming and hann windows have other ends there
    assert np.abs(found.numpy() - image())[DISC].mean() < 0.03


def test_equals_astra() -> None:
    astra = pytest.importorskip("astra")
    volume = astra.create_vol_geom(SIZE, SIZE)
    beam = astra.create_proj_geom("parallel", 1.0, SIZE, np.deg2rad(ANGLES_DEG))
    config = astra.astra_dict("FBP")
    config["ProjectorId"] = astra.create_projector("linear", beam, volume)
    config["ProjectionDataId"] = astra.data2d.create("-sino", beam, sinogram().numpy())
    config["ReconstructionDataId"] = astra.data2d.create("-vol", volume)
    config["option"] = {"FilterType": "Ram-Lak"}
    astra.algorithm.run(astra.algorithm.create(config))
    expected = astra.data2d.get(config["ReconstructionDataId"])
    found = reconstruct_slices(sinogram()[None], np.deg2rad(ANGLES_DEG))[0]
    assert rmse(found.numpy(), expected) < 0.01


def test_slices_are_reconstructed_as_if_each_were_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = torch.stack([sinogram(), 2 * sinogram(), sinogram().flip(1)])
    monkeypatch.setattr("src.ct.slices.MAX_VOXELS_PER_BLOCK", 2 * SIZE**2)
    together = reconstruct_slices(stack, np.deg2rad(ANGLES_DEG), size=90)
    for one, expected in zip(together, stack, strict=True):
        alone = reconstruct_slices(expected[None], np.deg2rad(ANGLES_DEG), size=90)[0]
        torch.testing.assert_close(one, alone, rtol=0, atol=1e-12)


def test_a_moved_detector_and_its_centre_give_the_same_slice() -> None:
    expected = reconstruct_slices(sinogram()[None], np.deg2rad(ANGLES_DEG))
    moved = torch.nn.functional.pad(sinogram(), (17, 4))
    found = reconstruct_slices(moved[None], np.deg2rad(ANGLES_DEG), centre=(SIZE - 1) / 2 + 17, size=SIZE)
    seen = torch.from_numpy(DISC)
    torch.testing.assert_close(found[:, seen], expected[:, seen], rtol=0, atol=1e-10)


def test_wider_pixels_sample_the_same_slice() -> None:
    expected = reconstruct_slices(sinogram()[None], np.deg2rad(ANGLES_DEG), size=61)
    fine = reconstruct_slices(sinogram()[None], np.deg2rad(ANGLES_DEG), size=121, pixel_width=0.5)
    torch.testing.assert_close(fine[:, ::2, ::2], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("last", "num_views"), [(360, 361), (359, 360), (180, 181)])
def test_views_that_repeat_count_once(last: float, num_views: int) -> None:
    angles = np.linspace(0, last, num_views)
    found = reconstruct_slices(sinogram(0, last, num_views)[None], np.deg2rad(angles))[0]
    expected = reconstruct_slices(sinogram()[None], np.deg2rad(ANGLES_DEG))[0]
    assert rmse(found.numpy(), expected.numpy()) < 2e-3


def test_weights_are_shares_of_the_half_turn() -> None:
    assert view_weights(np.deg2rad(ANGLES_DEG)) == pytest.approx(np.pi / 180)
    shuffled = np.random.default_rng(0).permutation(ANGLES_DEG)
    assert view_weights(np.deg2rad(shuffled + 360)) == pytest.approx(np.pi / 180)
    assert view_weights(np.deg2rad(np.linspace(0, 180, 181))).sum() == pytest.approx(np.pi)
    missing_wedge = view_weights(np.deg2rad(np.arange(120.0)))
    assert missing_wedge[[0, -1]] == pytest.approx(1.25 * np.pi / 180)
    assert view_weights(np.array([0.3])) == pytest.approx(np.pi)


@pytest.mark.parametrize(
    "angles_deg",
    [
        np.arange(0, 360, 0.7),  # 0.1 and 0.6 degrees modulo 180
        np.linspace(0, 359.99, 361),
        np.linspace(0, 360, 361) + np.random.default_rng(1).normal(0, 0.01, 361),
        np.concatenate([np.arange(90.0), np.arange(90, 180, 2.0)]),
        np.concatenate([np.linspace(0, 10, 1000), np.arange(11, 180, 1.0)]),
        np.arange(200) * 111.246,
        *(np.linspace(0, last, number) for last in (358, 359, 359.5, 359.9, 720) for number in (100, 361, 500, 999)),
        np.zeros(5),
        np.array([0.0, 90.0]),
        np.linspace(0, 150, 12),
        np.concatenate([np.arange(0, 90, 0.5), np.arange(90, 180, 2.0)]),
        np.concatenate([np.arange(0, 110, 0.25), np.arange(110, 180, 1.0)]),
        *(np.random.default_rng(seed).uniform(0, 360, number) for seed in range(5) for number in (20, 60, 360)),
    ],
)
def test_a_scan_without_a_missing_wedge_covers_the_half_turn(angles_deg: NDArray[np.float64]) -> None:
    assert view_weights(np.deg2rad(angles_deg)).sum() == pytest.approx(np.pi)


@pytest.mark.parametrize("step", [0.5, 1, 5])
@pytest.mark.parametrize("gap", [30, 60, 150])
def test_a_missing_wedge_is_not_covered(step: float, gap: float) -> None:
    angles = np.arange(0, 180 - gap + step / 2, step)
    twice = np.concatenate([angles, angles + 180.01])
    for views in (angles, twice):
        assert np.rad2deg(view_weights(np.deg2rad(views)).sum()) == pytest.approx(180 - gap + 1.5 * step, abs=0.02)


def test_wedges_among_random_views_are_not_covered() -> None:
    angles = np.random.default_rng(0).uniform(0, 130, 400)
    seen = angles[(angles < 40) | (angles > 70)]  # missing: 30 and 50 degrees
    assert np.rad2deg(view_weights(np.deg2rad(seen)).sum()) == pytest.approx(100, abs=3)


@pytest.mark.parametrize("offset", [0, 3.25, -8.5, 12.0])
@pytest.mark.parametrize(("last", "num_views"), [(180, 181), (179, 180), (174, 30), (360, 181)])
def test_the_centre_is_found(offset: float, last: float, num_views: int) -> None:
    whole, part = int(np.floor(offset)), offset % 1
    wide = torch.nn.functional.pad(sinogram(0, last, num_views), (30, 30))
    moved = wide.roll(whole, 1) * (1 - part) + wide.roll(whole + 1, 1) * part
    noise = torch.randn(moved.shape, generator=torch.Generator().manual_seed(0), dtype=moved.dtype)
    angles = np.deg2rad(np.linspace(0, last, num_views))
    for noisy in (moved, moved + 0.01 * moved.max() * noise):
        assert find_centre(noisy, angles) == pytest.approx(30 + (SIZE - 1) / 2 + offset, abs=0.3)


@pytest.mark.parametrize("noise", [0, 0.02])
@pytest.mark.parametrize("offset", [-0.22, -0.12, 0.2])
@pytest.mark.parametrize("radius", [0.2, 0.5, 0.9, 1.5])
def test_the_centre_of_objects_of_any_size_is_found_far_from_the_middle(
    radius: float, offset: float, noise: float
) -> None:
    pixels, angles = 96, np.linspace(0, np.pi, 121)
    centre = (pixels - 1) / 2 + offset * pixels
    fits = radius * min(centre, pixels - 1 - centre)  # a radius above 1 reaches beyond the detector
    s = torch.arange(pixels) - centre
    views = torch.zeros(len(angles), pixels, dtype=torch.float64)
    for x, y, r, value in ((0, 0, 0.9, 1), (0.4, 0.2, 0.2, -0.5), (-0.3, 0.4, 0.1, 0.8), (0.1, -0.6, 0.15, 0.6)):
        middle = torch.from_numpy(x * np.cos(angles) + y * np.sin(angles))[:, None] * fits
        views += 2 * value * ((r * fits) ** 2 - (s - middle) ** 2).clamp(min=0).sqrt()
    views += noise * views.max() * torch.randn(views.shape, generator=torch.Generator().manual_seed(0))
    assert find_centre(views, angles) == pytest.approx(centre, abs=0.5)


def test_dead_pixels_do_not_move_the_centre() -> None:
    wide = torch.nn.functional.pad(sinogram(0, 180, 181), (60, 60))
    wide[90, 40:50] = 5 * wide.max()
    assert find_centre(wide, np.deg2rad(np.arange(181.0))) == pytest.approx(60 + (SIZE - 1) / 2, abs=0.3)


@pytest.mark.parametrize(
    ("shape", "views", "options", "message"),
    [
        ((4, 9), 4, {}, r"expected sinograms of shape \(rows, views, pixels\), got \(4, 9\)"),
        ((1, 4, 9), 5, {}, "expected an angle for each of 4 views, got angles of shape"),
        ((1, 4, 9), 4, {"centre": 9.5}, "expected the centre of rotation between 0 and 8 pixels, got 9.5"),
        ((1, 4, 9), 4, {"size": 0}, "expected a reconstruction size of at least 1, got 0"),
        ((1, 4, 9), 4, {"pixel_width": 0.0}, "expected a positive pixel width, got 0.0"),
        ((1, 4, 9), 4, {"filter_name": "hahn"}, "expected filter to be one of ramp.*got 'hahn'"),
    ],
)
def test_what_does_not_fit_is_refused(shape: tuple, views: int, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reconstruct_slices(torch.zeros(shape), np.arange(views) * 0.5, **options)


@pytest.mark.parametrize("angles_deg", [np.arange(120.0), np.arange(180.0)[::-1].repeat(2), np.array([3.0])])
def test_no_centre_without_half_a_turn(angles_deg: NDArray) -> None:
    with pytest.raises(ValueError, match="expected views over at least half a turn in ascending order, got"):
        find_centre(torch.zeros(len(angles_deg), 9), np.deg2rad(angles_deg))
