import numpy as np
import pytest

from src.ct.foam import FoamPhantom, FoamSpec, draw_foam
from src.ct.geometry import DETECTOR_HALF_WIDTH, ParallelBeam, grid_centres
from src.ct.projection import RAYS_PER_BLOCK, project
from src.ct.voxelisation import voxelise

NO_BALLS = (np.empty((0, 3)), np.empty(0))
OBLIQUE = (0.9, 1.1, 0.7)


def test_single_ball_chords_are_exact():
    geometry = ParallelBeam(OBLIQUE, num_views=5, detector_size=61)
    centre, radius = np.array([0.2, -0.3, 0.1]), 0.35
    solid = FoamPhantom(0.9, 0.8, *NO_BALLS)
    with_hole = FoamPhantom(0.9, 0.8, centre[None], np.array([radius]))
    chords = project(solid, geometry) - project(with_hole, geometry)
    s = t = grid_centres(61, DETECTOR_HALF_WIDTH)
    for view, e in enumerate(geometry.detector_directions):
        squared = (t[:, None] - centre @ geometry.axis) ** 2 + (s - centre @ e) ** 2
        np.testing.assert_allclose(chords[view], 2 * np.sqrt(np.maximum(radius**2 - squared, 0)), atol=1e-12)


def test_cylinder_along_the_axis_of_rotation_is_a_rectangle_of_disc_chords():
    geometry = ParallelBeam((0, 0, 1), num_views=3, detector_size=48)
    s = t = grid_centres(48, DETECTOR_HALF_WIDTH)
    expected = 2 * np.sqrt(np.maximum(0.6**2 - s**2, 0)) * (np.abs(t) <= 0.4)[:, None]
    for view in project(FoamPhantom(0.6, 0.4, *NO_BALLS), geometry):
        np.testing.assert_allclose(view, expected, atol=1e-12)


def test_cylinder_seen_along_its_axis_is_a_disc_of_its_height():
    # About x, the frame is u = y, v = z: the first view's rays run along z, parallel to the wall.
    geometry = ParallelBeam((1, 0, 0), num_views=2, detector_size=48)
    end_view, side_view = project(FoamPhantom(0.6, 0.4, *NO_BALLS), geometry)
    s = t = grid_centres(48, DETECTOR_HALF_WIDTH)
    np.testing.assert_allclose(end_view, 0.8 * (t[:, None] ** 2 + s**2 < 0.36), atol=1e-12)
    chord = 2 * np.sqrt(np.maximum(0.6**2 - t**2, 0))
    np.testing.assert_allclose(side_view, chord[:, None] * (np.abs(s) <= 0.4), atol=1e-12)


def test_cylinder_crossed_obliquely_from_cap_to_cap():
    # A ray at angle α from z through the caps only has the chord 2H / cos α; one through walls only 2R / sin α.
    geometry = ParallelBeam((0, 1, 1), num_views=4, detector_size=3)
    steepness = geometry.ray_directions[:, 2]
    assert steepness[2] == pytest.approx(0, abs=1e-15)  # parallel to the caps
    flat = project(FoamPhantom(1.0, 0.05, *NO_BALLS), geometry)[:, 1, 1]
    np.testing.assert_allclose(flat, [*(0.1 / np.abs(steepness[:2])), 2, 0.1 / abs(steepness[3])], atol=1e-12)
    slim = project(FoamPhantom(0.05, 1.0, *NO_BALLS), geometry)[:, 1, 1]
    np.testing.assert_allclose(slim, 0.1 / np.sqrt(1 - steepness**2), atol=1e-12)


def test_line_integrals_against_a_fine_voxel_sum():
    rng = np.random.default_rng(0)
    phantom = draw_foam(FoamSpec(num_balls=(30, 30), num_trial_points=10_000), rng)
    geometry = ParallelBeam(rng.normal(size=3), num_views=4, detector_size=24)
    projection = project(phantom, geometry, oversampling=8)

    size = 160
    density = voxelise(phantom, size, oversampling=2)
    coordinates = grid_centres(size)
    z, y, x = (coordinates[index] for index in np.nonzero(density))
    points = np.stack([x, y, z], axis=1)
    mass = density[density > 0] * (2 / size) ** 3 / geometry.pixel_size**2
    for view, e in enumerate(geometry.detector_directions):
        s = ((points @ e + DETECTOR_HALF_WIDTH) / geometry.pixel_size).astype(int)
        t = ((points @ geometry.axis + DETECTOR_HALF_WIDTH) / geometry.pixel_size).astype(int)
        brute_force = np.bincount(t * 24 + s, weights=mass, minlength=24**2).reshape(24, 24)
        error = np.linalg.norm(projection[view] - brute_force) / np.linalg.norm(brute_force)
        assert error < 0.01


def test_oversampling_is_the_mean_over_subpixels():
    phantom = draw_foam(FoamSpec(num_balls=(20, 20), num_trial_points=5_000), np.random.default_rng(1))
    coarse = project(phantom, ParallelBeam(OBLIQUE, 3, 20), oversampling=3)
    fine = project(phantom, ParallelBeam(OBLIQUE, 3, 60))
    np.testing.assert_allclose(coarse, fine.reshape(3, 20, 3, 20, 3).mean(axis=(2, 4)), atol=1e-12)


def test_blocks_do_not_change_the_result(monkeypatch):
    phantom = draw_foam(FoamSpec(num_balls=(20, 20), num_trial_points=5_000), np.random.default_rng(1))
    whole = project(phantom, ParallelBeam(OBLIQUE, 3, 20), oversampling=2)
    monkeypatch.setitem(RAYS_PER_BLOCK, "cpu", 1)
    np.testing.assert_allclose(project(phantom, ParallelBeam(OBLIQUE, 3, 20), oversampling=2), whole, atol=1e-13)


@pytest.mark.parametrize("angle_rad", [1e-4, 1e-7, 1e-9, 1e-20])
def test_rays_almost_along_the_cylinder_have_chords_of_its_height(angle_rad):
    # The first view's rays run along cos α z − sin α x.
    geometry = ParallelBeam((np.cos(angle_rad), 0, np.sin(angle_rad)), num_views=1, detector_size=49)
    assert np.hypot(*geometry.ray_directions[0, :2]) == pytest.approx(angle_rad, rel=1e-6, abs=1e-16)
    t, s = np.meshgrid(*[grid_centres(49, DETECTOR_HALF_WIDTH)] * 2, indexing="ij")
    inside = np.hypot(s, t) < 0.6 - 1e-3
    (view,) = project(FoamPhantom(0.6, 0.4, *NO_BALLS), geometry)
    np.testing.assert_allclose(view[inside], 0.8 / np.cos(angle_rad), rtol=1e-12)
    np.testing.assert_array_equal(view[np.hypot(s, t) > 0.6 + 1e-3], 0)


def test_tiny_detector_holds_all_of_the_phantom():
    phantom = FoamPhantom(1.0, 1.0, np.array([[0.0, 0.0, 0.0]]), np.array([0.9]))
    projection = project(phantom, ParallelBeam((1, 1, 1), 2, 2), oversampling=32)
    volume = projection.sum(axis=(1, 2)) * DETECTOR_HALF_WIDTH**2
    np.testing.assert_allclose(volume, np.pi * 2 - 4 / 3 * np.pi * 0.9**3, rtol=5e-3)


def test_slice_against_astra():
    astra = pytest.importorskip("astra")
    phantom = draw_foam(FoamSpec(num_balls=(40, 40), num_trial_points=10_000), np.random.default_rng(2))
    geometry = ParallelBeam((0, 0, 1), num_views=12, detector_size=101)
    ours = project(phantom, geometry)[:, 50]  # the row t = 0

    size, samples = 1000, 4
    centres = grid_centres(size * samples)
    fine = (centres[:, None] ** 2 + centres**2 <= phantom.radius**2).astype(np.float32)
    for (cx, cy, cz), radius in zip(phantom.centres, phantom.radii, strict=True):
        if radius > abs(cz):
            fine[(centres[:, None] - cy) ** 2 + (centres - cx) ** 2 < radius**2 - cz**2] = 0
    image = fine.reshape(size, samples, size, samples).mean(axis=(1, 3))[::-1]  # its rows run downwards
    volume_geometry = astra.create_vol_geom(size, size, -1, 1, -1, 1)
    projection_geometry = astra.create_proj_geom("parallel", geometry.pixel_size, 101, geometry.angles_rad)
    projector = astra.create_projector("linear", projection_geometry, volume_geometry)
    identifier, theirs = astra.create_sino(np.ascontiguousarray(image), projector)
    astra.data2d.delete(identifier)
    astra.projector.delete(projector)
    # the largest difference is at a ball's edge, where the chord has a square-root singularity
    assert np.abs(ours - theirs).max() < 0.02 * theirs.max()
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < 0.001 * theirs.max()


def test_no_oversampling_below_one():
    with pytest.raises(ValueError, match="oversampling >= 1, got 0"):
        project(FoamPhantom(0.5, 0.5, *NO_BALLS), ParallelBeam((0, 0, 1), 1, 4), oversampling=0)
