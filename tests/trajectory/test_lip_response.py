"""How far rendered lips open beside what their codes say, against closed forms."""

import numpy as np
import pytest

from trajectory.adapt.lip_response import LipResponse, lip_response
from trajectory.training.amplitude_calibration import LARGEST_GAIN

OPENING = np.array([0.0, 0.05, 0.1, 0.15, 0.2])
MEAN = 0.1


def test_a_line_is_found_also_beside_frames_without_a_face():
    rendered = 0.02 + MEAN + 0.5 * (OPENING - MEAN)
    response = lip_response(OPENING, rendered, MEAN)
    assert (response.slope, response.offset) == (pytest.approx(0.5), pytest.approx(0.02))
    rendered[1] = np.nan
    assert lip_response(OPENING, rendered, MEAN).slope == pytest.approx(0.5)
    rendered[2] = np.nan
    assert lip_response(OPENING, rendered, MEAN) == LipResponse()


def test_gain_and_shift_give_the_rendered_opening_the_persons_mean_and_spread():
    response = LipResponse(slope=0.6, offset=-0.01)
    gain, shift = response.gain(0.9), response.shift(deviation=0.05)
    put_in = MEAN + gain * (OPENING - MEAN) + shift
    rendered = MEAN + response.offset + response.slope * (put_in - MEAN)
    np.testing.assert_allclose(rendered, MEAN + 0.9 * (OPENING - MEAN), atol=1e-12)


@pytest.mark.parametrize("slope", [-0.2, 0.0, 0.1])
def test_gain_and_shift_are_limited_where_the_lips_hardly_follow(slope):
    response = LipResponse(slope, offset=-1.0)
    assert response.gain(1.0) == LARGEST_GAIN and response.shift(0.05) == 0.05
    assert LipResponse(5.0, 1.0).gain(1.0) == 1 / LARGEST_GAIN and LipResponse(5.0, 1.0).shift(0.05) == -0.05
