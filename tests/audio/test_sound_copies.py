"""Changed copies of a sound: repeatable, different, and in time with the recording."""

import random

import numpy as np
import pytest

from audio.sound_copies import changed_copy
from audio.timing import RATE
from audio.waveform import Waveform

BEATS_S = (0.4, 0.9, 1.7, 2.3)  # seconds; unevenly spaced


@pytest.fixture
def recording():
    """Short bursts of a vowel-like sound."""
    t = np.arange(3 * RATE) / RATE
    voice = np.sum([np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 25)], axis=0)
    envelope = np.sum([np.exp(-(((t - beat) / 0.03) ** 2)) for beat in BEATS_S], axis=0)
    return Waveform((0.2 * voice * envelope).astype(np.float32))


def loudness(samples):
    """RMS every millisecond."""
    return np.sqrt(np.convolve(samples**2, np.ones(160) / 160, "same"))[::16]


def test_same_seed_gives_the_same_copy_and_leaves_the_global_random_numbers_alone(recording):
    np.random.seed(7)
    random.seed(7)
    first, tempo = changed_copy(recording, [0, 1])
    again, same_tempo = changed_copy(recording, [0, 1])
    assert tempo == same_tempo and np.array_equal(first.samples, again.samples)
    assert np.random.random() == np.random.RandomState(7).random_sample()
    assert random.random() == random.Random(7).random()
    other, _ = changed_copy(recording, [0, 2])
    assert len(other.samples) != len(first.samples) or not np.array_equal(other.samples, first.samples)


@pytest.mark.parametrize("seed", range(8))
def test_events_stay_in_time(recording, seed):
    copy, tempo = changed_copy(recording, [seed])
    assert 0.8 <= tempo <= 1.25
    assert len(copy.samples) == pytest.approx(3 * RATE / tempo, rel=0.02)
    heard = loudness(copy.samples)
    for beat in BEATS_S:
        around = heard[int(1000 * beat / tempo) - 150 : int(1000 * beat / tempo) + 150]
        centre = (around**2 @ np.arange(len(around))) / (around**2).sum() - 150
        assert abs(centre) < 25  # ms; noise and reverberation widen a burst
