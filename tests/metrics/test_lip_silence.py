"""Lip movement in silence, in closed form."""

import numpy as np
import pytest

from metrics.measures.lip_silence import ratio, silence_figures, speed

SILENT = np.arange(60) >= 30
KNOWN = np.ones(60, bool)


def zigzag(first: float, second: float) -> np.ndarray:
    """An aperture that jumps by `first` in each frame of the speech and by `second` in each frame of the silence."""
    return np.where(np.arange(60) % 2, np.where(SILENT, second, first), 0.0)


def test_speed_is_in_units_a_second_and_unknown_beside_unknown_frames():
    known = np.array([True, True, False, True, True])
    assert speed(np.array([0.0, 0.1, 9.0, 0.3, 0.1]), known)[[1, 4]] == pytest.approx([2.5, 5.0])
    assert np.isnan(speed(np.arange(5.0), known)[[0, 2, 3]]).all()


@pytest.mark.parametrize("second", [0.0, 0.05, 0.2])
def test_lips_that_move_in_silence(second):
    figures = silence_figures(zigzag(0.2, second), KNOWN, SILENT)
    assert figures["speech_motion"] == pytest.approx(0.2 * 25)
    assert figures["silence_motion"] == pytest.approx(second * 25)
    assert figures["silence_ratio"] == pytest.approx(second / 0.2)


def test_no_ratio_without_silence_speech_or_movement():
    for silent in (np.zeros(60, bool), np.ones(60, bool), np.arange(60) >= 55):
        assert silence_figures(zigzag(0.2, 0.1), KNOWN, silent)["silence_ratio"] is None
    assert silence_figures(np.full(60, 0.2), KNOWN, SILENT)["silence_ratio"] is None  # a frozen face
    assert silence_figures(zigzag(0.2, 0.1), ~KNOWN, SILENT)["silence_motion"] is None
    assert ratio(None, 1.0) is None and ratio(1.0, 4.0) == 0.25


def test_frames_without_a_face_do_not_count_as_movement():
    curve, detected = zigzag(0.2, 0.0), KNOWN.copy()
    curve[45], detected[45] = 5.0, False
    assert silence_figures(curve, detected, SILENT)["silence_ratio"] == 0
