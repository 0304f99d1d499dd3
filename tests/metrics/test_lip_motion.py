"""Lip measures: identities, shifts, constants, closures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.geometry import aperture, correlation
from encoders.lmd import mouth_distance
from metrics.measures.landmark_figures import sequence_figures
from metrics.measures.lip_motion import (
    LAGS,
    best_lag,
    closure_recall,
    closures,
    lip_gain,
    lip_gain_denominator,
)
from metrics.scoring.control_baselines import delayed

few = settings(max_examples=20, deadline=None)


def face(opening: np.ndarray) -> np.ndarray:
    """Landmarks (T, 68, 2) of a schematic face: eyes 80 px apart, inner lips opened by opening x 80 px."""
    points = np.zeros((len(opening), 68, 2))
    points[:, 36:42], points[:, 42:48] = (88, 110), (168, 110)
    points[:, 48:68] = (128, 190)
    points[:, 48, 0], points[:, 54, 0] = 100, 156
    points[:, 62, 1] -= 40 * opening
    points[:, 66, 1] += 40 * opening
    return points


TALK = 0.15 + 0.12 * np.sin(np.arange(60) * 0.7) * np.cos(np.arange(60) * 0.11)


def test_aperture_of_the_schematic_face():
    np.testing.assert_allclose(aperture(face(TALK)), TALK)


def test_correlation_identity_sign_and_closed_form():
    unrelated = np.random.default_rng(0).normal(size=60)
    assert correlation(TALK, TALK) == pytest.approx(1)
    assert correlation(3 * TALK + 1, TALK) == pytest.approx(1)
    assert correlation(-TALK, TALK) == pytest.approx(-1)
    assert correlation(TALK, unrelated) == pytest.approx(np.corrcoef(TALK, unrelated)[0, 1])


def test_a_shift_lowers_the_correlation():
    assert correlation(delayed(TALK, 5), TALK) < 0.1
    assert correlation(delayed(TALK, 5)[5:], TALK[:-5]) == pytest.approx(1)


@pytest.mark.parametrize("flat", [np.full(60, 0.2), np.full(60, 0.2) + 1e-9 * np.arange(60)])
def test_a_constant_has_no_correlation(flat):
    assert correlation(flat, TALK) == 0
    assert correlation(TALK, flat) == 0


def test_correlation_of_one_frame_and_of_other_lengths():
    assert correlation(TALK[:1], TALK[:1]) == 0
    with pytest.raises(ValueError, match="one length"):
        correlation(TALK, TALK[1:])


def test_mouth_distance_ignores_where_the_head_is():
    true = face(TALK)
    np.testing.assert_allclose(mouth_distance(true + np.array([7, -3]), true), 0, atol=1e-9)
    # two of twenty points move by 4 px in opposite directions: the centroid stays
    wider = true.copy()
    wider[:, 48, 0] -= 4
    wider[:, 54, 0] += 4
    np.testing.assert_allclose(mouth_distance(wider, true), 2 * 4 / 20)
    figures = sequence_figures(wider, true, np.ones(len(true), bool))
    assert figures["lmd_mouth_iod"] == pytest.approx(0.4 / 80)


def test_closures_start_from_open_lips():
    curve = np.array([0.01, 0.01, 0.2, 0.02, 0.01, 0.2, 0.03, 0.2, 0.0])
    assert closures(curve) == [(3, 5), (8, 9)]  # not the closed start; 0.03 is not below 0.03


def test_closure_recall():
    true = np.array([0.2, 0.2, 0.01, 0.2, 0.2, 0.2, 0.2, 0.01, 0.01, 0.2, 0.2])
    assert closure_recall(true, true) == 1
    assert closure_recall(delayed(true, 1), true) == 1
    assert closure_recall(delayed(true, 3), true) == 0
    once = np.where(np.arange(11) == 10, 0.0, 0.2)
    assert closure_recall(once, true) == 0  # the second closure ends at frame 8; the tolerance reaches to 9
    assert closure_recall(np.roll(once, -1), true) == 0.5


def test_no_recall_for_a_mouth_that_never_opens_or_is_not_detected():
    true = np.array([0.2, 0.01, 0.2, 0.01])
    assert closure_recall(np.zeros(4), true) == 0
    assert closure_recall(np.array([0.2, np.nan, 0.2, 0.0]), true) == 0.5
    assert closure_recall(np.array([0.2, np.nan, np.nan, np.nan]), true) == 0
    assert closure_recall(true, np.full(4, 0.2)) is None


def test_lip_gain():
    assert lip_gain(4.0, static=4.0, inversion=1.0) == 0
    assert lip_gain(1.0, static=4.0, inversion=1.0) == 1
    assert lip_gain(2.5, static=4.0, inversion=1.0) == 0.5
    assert lip_gain(5.5, static=4.0, inversion=1.0) == -0.5
    assert lip_gain(2.0, static=1.0, inversion=1.0) is None
    assert lip_gain(None, 4.0, 1.0) is None


def test_no_lip_gain_where_inversion_is_hardly_better_than_a_frozen_face():
    assert lip_gain(1.0, static=1.25, inversion=1.0) == 1
    assert lip_gain(1.0, static=1.125, inversion=1.0) is None  # below 0.2 px
    assert lip_gain_denominator(1.125, 1.0) == 0.125
    assert lip_gain_denominator(1.0, 1.5) == -0.5
    assert lip_gain_denominator(None, 1.0) is None and lip_gain_denominator(1.0, None) is None


def smooth_noise(n: int, seed: int) -> np.ndarray:
    return np.convolve(np.random.default_rng(seed).normal(size=n + 4), np.ones(5) / 5, mode="valid")


@few
@given(st.integers(-LAGS, LAGS), st.integers(0, 1000))
def test_a_shift_of_k_frames_is_found_as_k(k, seed):
    long = smooth_noise(120, seed)
    true, late = long[20:100], long[20 - k : 100 - k]
    value, lag = best_lag(late, true)
    assert lag == k and value == pytest.approx(1)


def test_the_best_correlation_does_not_show_the_lag():
    long = smooth_noise(120, 3)
    assert best_lag(long[10:90], long[15:95]) == (pytest.approx(1), 5)
    assert correlation(long[10:90], long[15:95]) < 0.9
    assert best_lag(np.full(50, 0.2), smooth_noise(50, 1)) == (0.0, None)
    assert best_lag(long[:3], long[:3])[1] == 0  # at most half of a short clip is shifted away


@few
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_correlation_is_symmetric_and_bounded(a, b):
    x, y = smooth_noise(40, a), smooth_noise(40, b)
    assert correlation(x, y) == pytest.approx(correlation(y, x))
    assert -1 <= correlation(x, y) <= 1
