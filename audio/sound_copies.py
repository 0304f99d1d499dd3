"""Changed copies of a recording, for training on more voices, rooms and microphones than were recorded (audiomentations).

Tempo, pitch together with the formants, room, spectral balance, noise, band limits and loudness change; each copy gets
about half of these changes. All are ours: the paper states no augmentation. S: samples at 16 kHz.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from audio.timing import RATE
from audio.waveform import Waveform

TEMPO = (0.8, 1.25)  # factor
PITCH = (-5.0, 5.0)  # semitones; the formants move with it, as in a vocal tract of another length
NOISE_DB = (8.0, 35.0)  # signal-to-noise ratio
LOW_PASS, HIGH_PASS = (3000.0, 7500.0), (50.0, 350.0)  # Hz; from a telephone to a small microphone
BANDS_DB = (-9.0, 9.0)  # gain in each of seven bands
GAIN_DB = (-18.0, 6.0)


def changed_copy(waveform: Waveform, seed: list[int]) -> tuple[Waveform, float]:
    """A copy and its tempo: what happens at second t of the recording is at t / tempo in the copy, within 5 ms.

    The same recording and seed give the same copy.
    """
    import audiomentations as changes

    tempo = changes.TimeStretch(*TEMPO, leave_length_unchanged=False, p=0.7)
    others = [
        changes.PitchShift(*PITCH, p=0.7),
        changes.RoomSimulator(p=0.3, leave_length_unchanged=True),
        changes.SevenBandParametricEQ(*BANDS_DB, p=0.6),
        changes.LowPassFilter(*LOW_PASS, min_rolloff=12, max_rolloff=24, p=0.2),
        changes.HighPassFilter(*HIGH_PASS, min_rolloff=12, max_rolloff=24, p=0.2),
        changes.AddGaussianSNR(*NOISE_DB, p=0.3),
        changes.AddColorNoise(*NOISE_DB, p=0.3),
        changes.Gain(*GAIN_DB, p=0.8),
    ]
    with _seeded(seed):
        samples = tempo(waveform.samples, RATE)
        drawn: Any = tempo.parameters
        factor = float(drawn["rate"]) if drawn["should_apply"] else 1.0
        for change in others:
            samples = change(samples, RATE)
    return Waveform(np.clip(samples, -1.0, 1.0).astype(np.float32)), factor


@contextmanager
def _seeded(seed: list[int]) -> Iterator[None]:
    """Seeds the global random numbers, which audiomentations uses, and restores them afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    np.random.seed(number)
    random.seed(number)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
