import numpy as np
import pytest

from src.ct.geometry import CUBE_DIAGONAL, ParallelBeam, grid_centres, tilted_axis


@pytest.mark.parametrize("axis", [(0, 0, 1), (1, 1, 1), (0.2, -3.0, 0.4), (0, -1, 0)])
def test_every_view_has_a_right_handed_orthonormal_frame(axis):
    geometry = ParallelBeam(axis, num_views=7, detector_size=4)
    for e, d in zip(geometry.detector_directions, geometry.ray_directions, strict=True):
        frame = np.array([e, d, geometry.axis])
        np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-15)
        assert np.linalg.det(frame) == pytest.approx(1)
    np.testing.assert_allclose(np.cross(geometry.axis, axis), 0, atol=1e-15)
    assert geometry.axis @ np.asarray(axis) > 0


def test_views_about_z_start_at_x_and_turn_to_y():
    geometry = ParallelBeam((0, 0, 2), num_views=2, detector_size=4)
    np.testing.assert_allclose(geometry.detector_directions, [[1, 0, 0], [0, 1, 0]], atol=1e-15)
    np.testing.assert_allclose(geometry.angles_rad, [0, np.pi / 2])


def test_grid_centres():
    np.testing.assert_allclose(grid_centres(4), [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(grid_centres(2, 3), [-1.5, 1.5])


def test_tilted_axis_has_the_angle_asked_for():
    diagonal = np.array(CUBE_DIAGONAL) / 3**0.5
    for azimuth_rad in (0.0, 1.0, 4.0):
        axis = tilted_axis(CUBE_DIAGONAL, 7.0, azimuth_rad)
        assert np.rad2deg(np.arccos(axis @ diagonal)) == pytest.approx(7)
        assert np.linalg.norm(axis) == pytest.approx(1)
    assert abs(tilted_axis(CUBE_DIAGONAL, 7, 0) - tilted_axis(CUBE_DIAGONAL, 7, 1)).max() > 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 0, 0), 3, 3), "non-zero vector"),
        (((0, 1), 3, 3), r"got \(0, 1\)"),
        (((0, 0, np.nan), 3, 3), "finite"),
        (((0, 0, 1), 0, 3), "num_views >= 1, got 0"),
        (((0, 0, 1), 3, -2), "detector_size >= 1, got -2"),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ParallelBeam(*arguments)
