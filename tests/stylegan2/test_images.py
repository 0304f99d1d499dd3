"""Conversion of images between files and networks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stylegan2.images import resize, to_tensor, to_uint8

pytestmark = pytest.mark.usefixtures("one_thread")


@given(arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.just(3))))
def test_pixels_survive_the_round_trip(frames):
    x = to_tensor(frames)
    assert x.shape == (frames.shape[0], 3, *frames.shape[1:3]) and x.dtype == torch.float32
    assert x.min() >= -1 and x.max() <= 1
    assert np.array_equal(to_uint8(x), frames)


def test_pixel_range_and_layout():
    x = to_tensor(np.array([[[0, 255, 127]]], np.uint8))
    assert x.flatten().tolist() == pytest.approx([-1, 1, -1 / 255], abs=1e-6)
    assert to_uint8(torch.tensor([-7.0, 7.0, 0.0]).view(1, 3, 1, 1)).flatten().tolist() == [0, 255, 128]
    with pytest.raises(ValueError, match="uint8"):
        to_tensor(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        to_uint8(torch.zeros(3, 4, 4))


def test_resize_averages_areas():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(resize(x, 2), torch.tensor([[2.5, 4.5], [10.5, 12.5]])[None, None])
    assert resize(x, 4) is x and resize(x, 8).shape[-2:] == (8, 8)
