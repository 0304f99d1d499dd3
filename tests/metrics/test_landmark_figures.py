"""Figures of a clip's landmarks: the truth against itself, no frames, other resolutions."""

import numpy as np
import pytest
from drawn_face import random_face

from metrics.measures.landmark_figures import SEQUENCE, sequence_figures

RNG = np.random.default_rng(0)


def test_sequence_of_the_truth_and_of_no_frames():
    points = random_face(30) + RNG.normal(0, 1, (30, 68, 2))
    perfect = sequence_figures(points, points, np.ones(30, bool))
    assert tuple(perfect) == SEQUENCE and perfect["lmd"] == perfect["m_lmd"] == perfect["head_error"] == 0
    assert set(sequence_figures(points[:0], points[:0], np.ones(0, bool)).values()) == {None}


def test_over_the_inter_ocular_distance_the_resolution_does_not_matter():
    true = random_face(20)
    predicted = true + RNG.normal(0, 1, true.shape)
    small, large = (sequence_figures(predicted * k, true * k, np.ones(20, bool)) for k in (1, 4))
    for name in ("f_lmd", "m_lmd", "lmd_mouth_iod"):
        assert small[name] == pytest.approx(large[name])
    assert large["lmd"] == pytest.approx(4 * (small["lmd"] or np.nan))  # so px need a defined crop size
