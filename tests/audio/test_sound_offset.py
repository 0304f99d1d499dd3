"""The offset between sound and picture: found exactly on curves whose offset is known, and removed from the sound."""

import numpy as np
import pytest

from audio.sync.sound_offset import LARGEST, lag_correlations, shifted, sound_offset


def curve_of(heard, seen, known):
    """lag_correlations of curves that can be compared."""
    curve = lag_correlations(heard, seen, known)
    assert curve is not None
    return curve


def opening(frames, seed=0):
    """A smooth curve, as the lips' opening is."""
    noise = np.random.default_rng(seed).standard_normal(frames + 8)
    return np.convolve(noise, np.hanning(9), "valid")


@pytest.mark.parametrize("offset", [-7, -1, 0, 3, 9])
def test_late_sound_has_a_positive_offset(offset):
    seen, known = opening(120), np.ones(120, bool)
    heard = np.roll(seen, offset)  # what belongs to frame t is heard at frame t + offset
    found = sound_offset([curve_of(heard, seen, known)])
    assert found.frames == pytest.approx(offset, abs=0.1)
    assert found.correlation > 0.95 and found.certain


def test_fraction_of_a_frame_is_found():
    fine = opening(4 * 200)
    seen, heard = fine[40:640:4], fine[40 - 2 : 640 - 2 : 4]  # half a frame late
    found = sound_offset([curve_of(heard, seen, np.ones(len(seen), bool))])
    assert found.frames == pytest.approx(0.5, abs=0.15)


def test_unrelated_curves_are_uncertain():
    certain = [
        sound_offset([curve_of(opening(250, seed), opening(250, seed + 100), np.ones(250, bool))]).certain
        for seed in range(20)
    ]
    assert sum(certain) <= 2


def test_several_clips_with_one_offset_are_surer_than_one():
    curves = []
    for seed in range(12):
        seen = opening(75, seed)
        heard = np.roll(seen, 4) + 1.5 * opening(75, seed + 50)
        curves.append(curve_of(heard, seen, np.ones(75, bool)))
    assert sound_offset(curves).frames == pytest.approx(4, abs=0.3)


def test_short_or_faceless_clips_have_no_estimate():
    curve = opening(100)
    assert lag_correlations(curve[: 2 * LARGEST], curve[: 2 * LARGEST], np.ones(2 * LARGEST, bool)) is None
    assert lag_correlations(curve, curve, np.arange(100) < 20) is None
    assert lag_correlations(np.zeros(100), curve, np.ones(100, bool)) is None


def test_frames_without_a_face_do_not_matter():
    seen = opening(120)
    known = np.ones(120, bool)
    known[40:50], seen_with_gap = False, seen.copy()
    seen_with_gap[40:50] = 1e3
    found = sound_offset([curve_of(np.roll(seen, 2), seen_with_gap, known)])
    assert found.frames == pytest.approx(2, abs=0.1)


def test_sound_is_moved_by_whole_samples_and_keeps_its_length():
    samples = np.arange(6400, dtype=np.float32)
    assert np.array_equal(shifted(samples, 1.5)[:10], samples[960:970]) and shifted(samples, 1.5)[-1] == 0
    assert np.array_equal(shifted(samples, -1)[640:650], samples[:10]) and shifted(samples, -1)[0] == 0
    assert len(shifted(samples, 20)) == len(shifted(samples, -20)) == len(samples)
