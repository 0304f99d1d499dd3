"""Which frames of speech are silent."""

from collections.abc import Sequence

import numpy as np
import pytest

from audio.silence import frame_rms, silent_frames


def sound(levels_dB: Sequence[float]) -> np.ndarray:
    """Noise (S,) whose video frame t is `levels_dB[t]` dB below full scale."""
    noise = np.random.default_rng(0).choice([-1.0, 1.0], (len(levels_dB), 640))
    return (noise * 10 ** (-np.array(levels_dB)[:, None] / 20)).astype(np.float32).ravel()


def test_rms_of_frames():
    assert frame_rms(sound([20, 40]), 3) == pytest.approx([0.1, 0.01, 0])


def test_a_pause_is_silent_except_where_it_borders_on_sound():
    levels = [20] * 10 + [50] * 9 + [20] * 10 + [50] * 5 + [20] * 10 + [50] * 8
    silent = silent_frames(sound(levels), len(levels))
    # two frames next to speech are left out; five frames are too short for a pause; the clip's end borders on nothing
    assert np.flatnonzero(silent).tolist() == [*range(12, 17), *range(46, 52)]


def test_the_level_is_relative_but_digital_silence_is_always_silent():
    loud, soft = (silent_frames(sound([a] * 10 + [a + 30] * 10), 20) for a in (0, 25))
    assert np.array_equal(loud, soft) and loud.sum() == 8
    noisy = silent_frames(sound([0] * 10 + [15] * 10), 20)  # noise hides the pause
    assert not noisy.any()
    assert silent_frames(np.zeros(0, np.float32), 8).all() and silent_frames(np.zeros(9), 0).shape == (0,)
