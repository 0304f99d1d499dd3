"""Frame arithmetic is exact for every length: the definition, the inverse, and fractions as the judge."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.timing import FPS, RATE, centre_of_frame, frame_of_sample, frames_of_samples, samples_of_frames

COUNT = st.integers(min_value=0, max_value=10**12)


@given(COUNT)
def test_frames_are_the_exact_ceiling(samples):
    assert frames_of_samples(samples) == ceil(Fraction(samples * FPS, RATE))


@given(COUNT)
def test_frames_cover_the_samples_and_no_more(samples):
    frames = frames_of_samples(samples)
    assert samples_of_frames(frames) >= samples
    assert frames == 0 or samples_of_frames(frames - 1) < samples


@given(COUNT)
def test_samples_and_frames_are_inverse(frames):
    assert frames_of_samples(samples_of_frames(frames)) == frames


@given(COUNT)
def test_a_frames_centre_lies_in_it(frame):
    centre = centre_of_frame(frame)
    assert frame_of_sample(centre) == frame
    assert 2 * centre == samples_of_frames(frame) + samples_of_frames(frame + 1)


def test_a_sample_before_the_clip_is_before_frame_zero():
    assert frame_of_sample(-1) == -1


@pytest.mark.parametrize("function", [frames_of_samples, samples_of_frames])
def test_negative_counts_are_refused(function):
    with pytest.raises(ValueError, match="negative"):
        function(-1)
