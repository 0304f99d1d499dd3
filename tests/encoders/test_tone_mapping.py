"""HDR pictures become SDR pictures with the brightness that the standards name."""

import numpy as np
import pytest

from encoders.footage.tone_mapping import HLG, PQ, sdr_picture


def grey_of(code, transfer):
    return sdr_picture(np.full((2, 3, 3), round(code * 65535), np.uint16), transfer)


@pytest.mark.parametrize(
    ("transfer", "code", "light"),  # cd/m2; BT.2408, tables 1 and 2: grey card 26, white 203
    [(PQ, 0.38, 26), (PQ, 0.5081, 100), (HLG, 0.38, 26), (PQ, 0.0, 0), (HLG, 0.0, 0)],
)
def test_grey_has_the_brightness_that_the_standard_names(transfer, code, light):
    linear = light / 203
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055) if linear else 0
    shown = grey_of(code, transfer)
    assert shown.dtype == np.uint8 and shown.shape == (2, 3, 3)
    assert np.abs(shown - expected).max() <= 2


def test_both_kinds_agree_on_white_and_brighter_is_brighter():
    pq, hlg = grey_of(0.5807, PQ).astype(int), grey_of(0.75, HLG).astype(int)
    assert np.abs(pq - hlg).max() <= 1 and 235 < pq.min() < 255
    for transfer in (PQ, HLG):
        shown = [int(grey_of(code, transfer)[0, 0, 0]) for code in np.linspace(0, 1, 101)]
        assert shown == sorted(shown) and shown[-1] == 255


def test_colours_outside_sdr_stay_in_range():
    image = np.zeros((1, 3, 3), np.uint16)
    image[0, [0, 1, 2], [0, 1, 2]] = 65535
    for transfer in (PQ, HLG):
        shown = sdr_picture(image, transfer)
        assert (shown[0].argmax(axis=1) == [0, 1, 2]).all()
