"""Sharpness and flicker against closed forms."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from metrics.measures.sharpness import FACE_PLACE, SHARPNESS, Sharpness, StillFlicker, laplacian_variance

TEXTURE = np.random.default_rng(0).integers(40, 216, (256, 256, 1)).repeat(3, axis=2).astype(np.uint8)


def sharpness(*crops: np.ndarray) -> dict:
    meter = Sharpness()
    for crop in crops:
        meter.update(crop)
    return meter.values(TEXTURE)


def flicker(levels: list[float], shift: int = 0) -> float | None:
    meter = StillFlicker()
    for t, level in enumerate(levels):
        picture = TEXTURE if shift else np.full((256, 256, 3), 100, np.uint8)
        meter.update(np.roll(picture, shift * t, axis=1) + np.uint8(level))
    return meter.value


def test_laplacian_variance_of_stripes():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 10  # the Laplacian is -20 on a light and 20 on a dark column
    assert laplacian_variance(stripes) == pytest.approx({"mouth_sharpness": 400, "face_sharpness": 400})
    assert laplacian_variance(np.full((256, 256, 3), 9, np.uint8)) == {
        "mouth_sharpness": 0,
        "face_sharpness": 0,
    }


def test_sharpness_is_relative_to_the_identity_frame():
    assert sharpness(TEXTURE, TEXTURE) == pytest.approx({"mouth_sharpness": 1, "face_sharpness": 1})
    half = (128 + (TEXTURE.astype(float) - 128) / 2).astype(np.uint8)
    assert sharpness(half)["mouth_sharpness"] == pytest.approx(0.25, rel=0.01)
    assert sharpness(TEXTURE, half)["face_sharpness"] == pytest.approx(0.625, rel=0.01)
    blurred = gaussian_filter(TEXTURE, (1, 1, 0))
    assert max(filter(None, sharpness(blurred).values())) < 0.05
    assert sharpness()["mouth_sharpness"] is None
    flat = Sharpness()
    flat.update(TEXTURE)
    assert flat.values(np.zeros_like(TEXTURE)) == {"mouth_sharpness": None, "face_sharpness": None}


def test_only_the_mouth_is_blurred():
    mouth = TEXTURE.copy()
    mouth[144:240, 80:176] = gaussian_filter(TEXTURE, (2, 2, 0))[144:240, 80:176]
    figures = sharpness(mouth)
    rows, columns = FACE_PLACE
    share = (rows.stop - 144) * 96 / ((rows.stop - rows.start) * (columns.stop - columns.start))
    assert figures["mouth_sharpness"] < 0.05
    assert figures["face_sharpness"] == pytest.approx(1 - share, abs=0.05)


def test_flicker_of_what_should_be_still():
    assert flicker([0] * 9) == 0 and flicker([0, 5]) is None
    assert flicker([3 * t for t in range(9)]) == 0  # a steady change of light
    assert flicker([0, 6] * 5) == pytest.approx(6)
    assert flicker([0, 255 - 100, 0]) == pytest.approx(155)  # uint8 would wrap


def test_flicker_below_the_brows_and_small_shifts_hardly_count():
    meter = StillFlicker()
    for t in range(9):
        crop = np.full((256, 256, 3), 100, np.uint8)
        crop[80:] += np.uint8(50 * (t % 2))
        meter.update(crop)
    assert meter.value == 0
    assert 0 < (flicker([0] * 9, shift=1) or 0) < 3  # of noise with a standard deviation of 51 grey levels


def test_every_column_has_a_definition():
    assert set(SHARPNESS) == {*sharpness(TEXTURE), "still_flicker"}
