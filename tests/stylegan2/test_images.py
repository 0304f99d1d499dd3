"""Conversion of images between files and networks."""

import shutil
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from stylegan2.images import read_rgb, resize, to_tensor, to_uint8, upright_rgb

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


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_transparency_hides_is_not_seen(tmp_path, mode):
    hidden = np.zeros((40, 60, 4), np.uint8)
    hidden[:, :30] = [200, 200, 200, 255]
    hidden[:, 30:] = [250, 250, 250, 0]  # a second person, perhaps
    Image.fromarray(hidden, "RGBA").convert(mode).save(tmp_path / "x.png")
    seen = np.asarray(read_rgb(tmp_path / "x.png")).astype(int)
    assert seen.shape == (40, 60, 3)
    assert np.abs(seen[:, :30] - 200).max() <= 4 and (seen[:, 30:] == 128).all()


def test_half_transparent_places_are_mixed_with_grey(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(tmp_path / "x.png")
    np.testing.assert_allclose(np.asarray(read_rgb(tmp_path / "x.png"))[0, 0], [191, 64, 64], atol=1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_large_pictures_are_reduced_and_turned(tmp_path, suffix):
    ramp = np.tile(np.linspace(0, 255, 600).astype(np.uint8)[:, None], (1, 400))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored as turned by 90 degrees counterclockwise
    Image.fromarray(np.stack([np.rot90(ramp)] * 3, -1)).save(tmp_path / f"x.{suffix}", exif=exif)
    with Image.open(tmp_path / f"x.{suffix}") as picture:
        reduced = np.asarray(upright_rgb(picture, 150))
    assert reduced.shape == (150, 100, 3)
    np.testing.assert_allclose(reduced[:, 50, 0], np.linspace(0, 255, 150), atol=3)


def test_large_pictures_of_16_bits_are_reduced(tmp_path):
    Image.fromarray(np.full((300, 200), 25700, np.uint16)).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        reduced = np.asarray(upright_rgb(picture, 150))
    assert reduced.shape == (150, 100, 3) and (reduced == 100).all()


def test_200_megapixels_are_read_and_more_than_250_refused(tmp_path):
    Image.new("1", (16320, 12240), 1).save(tmp_path / "x.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_rgb(tmp_path / "x.png").size == (4096, 3072)
    huge = bytearray((tmp_path / "x.png").read_bytes())
    for width in (24000, 10**6):
        huge[16:20] = width.to_bytes(4, "big")
        huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
        (tmp_path / "huge.png").write_bytes(huge)
        with warnings.catch_warnings():  # Pillow's own warning comes before the error
            warnings.simplefilter("ignore")
            with pytest.raises(ValueError, match="it has more than 250 megapixels: reduce it first"):
                read_rgb(tmp_path / "huge.png")


def test_what_pillow_refuses_with_other_errors_is_a_value_error(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.avif")
    data = (tmp_path / "x.avif").read_bytes()
    start = data.index(b"mdat") + 4
    (tmp_path / "x.avif").write_bytes(data[:start] + bytes(len(data) - start))  # RuntimeError
    with pytest.raises(ValueError, match="ailed to decode"):
        read_rgb(tmp_path / "x.avif")


def test_postscript_which_pillow_would_have_executed_is_no_picture(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "x.eps")
    shutil.move(tmp_path / "x.eps", tmp_path / "x.jpg")
    with pytest.raises(OSError, match="cannot identify"):
        read_rgb(tmp_path / "x.jpg")
