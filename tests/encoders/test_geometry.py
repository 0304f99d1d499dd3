"""Distances between landmarks, against values worked out by hand."""

import numpy as np
import pytest

from encoders import geometry


def face():
    """Eyes 60 px apart, lips 9 px apart, mouth 48 px wide."""
    points = np.zeros((68, 2))
    points[36:42] = [70, 100]
    points[42:48] = [130, 100]
    points[48:68] = [100, 160]
    points[62], points[66] = [100, 155], [100, 164]
    points[48], points[54] = [76, 160], [124, 160]
    return points


def test_measures_of_a_known_face():
    np.testing.assert_allclose(geometry.eye_centres(face()), [[70, 100], [130, 100]])
    assert geometry.inter_ocular(face()) == pytest.approx(60)
    assert geometry.aperture(face()) == pytest.approx(9 / 60)
    assert geometry.width(face()) == pytest.approx(48 / 60)
    raised = face()
    raised[17:22], raised[22:27] = [70, 85], [133, 96]  # 15 px and 5 px from the eyes
    assert geometry.brow_height(raised) == pytest.approx(10 / 60)


def test_leading_dimensions_and_invariance():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3, 5, 68, 2)).astype(np.float32)
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for measure in (geometry.aperture, geometry.width, geometry.brow_height, geometry.eye_openness):
        values = measure(points)
        assert values.shape == (3, 5)
        np.testing.assert_allclose(values[1, 2], measure(points[1, 2]))
        # Relative measures do not depend on the head's position, size and rotation.
        np.testing.assert_allclose(measure(2.5 * points @ turn.T + 40.0), values, rtol=1e-6)


def test_eye_openness_of_a_known_eye():
    points = face()
    eye = np.array([[0, 0], [2, -1], [4, -1], [6, 0], [4, 1], [2, 1]], dtype=float)  # 6 wide, 2 high
    points[36:42], points[42:48] = eye, eye + np.array([20, 0])
    assert geometry.eye_openness(points) == pytest.approx(2 / 6)


def test_points_without_scale_are_nan_and_wrong_shapes_are_refused():
    assert np.isnan(geometry.aperture(np.zeros((68, 2))))
    with pytest.raises(ValueError, match=r"\(68, 2\), got \(5, 2\)"):
        geometry.width(np.zeros((5, 2)))
