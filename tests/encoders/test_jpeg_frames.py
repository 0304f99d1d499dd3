"""JpegFrames behaves like the array of its frames."""

import numpy as np
import pytest

from encoders.jpeg_frames import ClipError, JpegFrames

T, SIZE = 5, 48


def pictures():
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.stack([np.stack([4 * x, 4 * y, np.full_like(x, 40 * t)], axis=-1) for t in range(T)]).astype(
        np.uint8
    )


def test_frames_behave_like_the_array():
    frames = JpegFrames.encode(pictures())
    array = np.asarray(frames)
    assert frames.shape == array.shape == (T, SIZE, SIZE, 3) and frames.dtype == np.uint8 and len(frames) == T
    for index in (
        0,
        -1,
        np.int64(3),
        slice(1, 4),
        slice(None, None, 2),
        [4, 0],
        np.array([True] * 2 + [False] * 3),
    ):
        np.testing.assert_array_equal(frames[index], array[index])
    assert frames[2:2].shape == (0, SIZE, SIZE, 3)
    np.testing.assert_array_equal(list(frames), array)
    with pytest.raises(IndexError):
        frames[T]


def test_a_frame_is_decoded_alone():
    frames = JpegFrames.encode(pictures())
    data = frames.data.copy()
    data[frames.offsets[3] : frames.offsets[4]] = 0
    broken = JpegFrames(data, frames.offsets)
    np.testing.assert_array_equal(broken[2], frames[2])
    with pytest.raises(ClipError, match="frame 3 is no JPEG"):
        broken[3]


def test_a_frame_of_another_size_is_refused_before_it_is_decoded():
    small, large = JpegFrames.encode(pictures()[:1]), JpegFrames.encode([np.zeros((900, 900, 3), np.uint8)])
    mixed = JpegFrames(
        np.concatenate([small.data, large.data]),
        np.array([0, len(small.data), len(small.data) + len(large.data)]),
    )
    with pytest.raises(ClipError, match=r"frame 1 is RGB \(900, 900\), expected RGB 48 x 48"):
        mixed[1]
