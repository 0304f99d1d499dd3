"""LMD against values worked out by hand."""

import numpy as np
import pytest

from encoders.lmd import landmark_distance, mouth_distance


def test_distances_of_two_faces():
    a = np.random.default_rng(0).uniform(0, 256, (68, 2))
    assert landmark_distance(a, a) == 0
    assert landmark_distance(a, a + np.array([3, 4])) == pytest.approx(5)
    # A translated mouth has distance 0; moving one corner by 20 px moves the centroid by 1 px.
    assert mouth_distance(a, a + np.array([3, 4])) == pytest.approx(0, abs=1e-12)
    b = a.copy()
    b[48] -= [20, 0]
    assert mouth_distance(a, b) == pytest.approx((19 + 19 * 1) / 20)
