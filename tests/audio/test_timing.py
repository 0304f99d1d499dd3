"""Frame arithmetic is exact for every length, checked against fractions."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.timing import FPS, RATE, frames_of_samples, samples_of_frames

COUNT = st.integers(min_value=0, max_value=10**12)


@given(COUNT)
def test_frames_are_the_exact_ceiling(samples):
    assert frames_of_samples(samples) == ceil(Fraction(samples * FPS, RATE))


@given(COUNT)
def test_frames_are_the_fewest_that_cover_the_samples(samples):
    frames = frames_of_samples(samples)
    assert samples_of_frames(frames) >= samples
    assert frames == 0 or samples_of_frames(frames - 1) < samples


@given(COUNT)
def test_samples_and_frames_are_inverse(frames):
    assert frames_of_samples(samples_of_frames(frames)) == frames


@pytest.mark.parametrize("function", [frames_of_samples, samples_of_frames])
def test_negative_counts_are_refused(function):
    with pytest.raises(ValueError, match="negative"):
        function(-1)
