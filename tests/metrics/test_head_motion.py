"""Blinks, head motion and flicker against closed forms."""

import numpy as np
import pytest
from drawn_face import random_face

from encoders.footage.align import CROP_SIZE
from metrics.measures.head_motion import Flicker, blink_rate, blinks, head_pose, head_spread


def test_blinks_are_counted_against_the_clips_own_openness():
    openness = np.full(100, 0.2)
    openness[10:14] = openness[50:53] = 0.05
    openness[70] = 0.05  # one frame is jitter
    openness[:2] = 0.05  # a run at the start is not counted
    assert blinks(openness) == 2
    assert blinks(np.full(100, 0.1)) == 0  # narrow eyes are not closed


def test_blink_rate_of_landmarks():
    points = random_face(100)
    for eye in (slice(36, 42), slice(42, 48)):
        points[20:24, eye, 1] = 110
    assert blink_rate(points) == pytest.approx(60 * 25 / 100)


def test_head_motion_in_closed_form():
    still, swing = random_face(50), random_face(50)
    swing[:, :, 0] += 8 * np.sin(np.arange(50) * 2 * np.pi / 25)[:, None]
    assert head_spread(head_pose(still)) == pytest.approx(0, abs=1e-12)
    assert head_spread(head_pose(swing)) == pytest.approx(8 / 80 / np.sqrt(2))
    assert head_spread(head_pose(swing) - head_pose(swing)) == 0


def test_quads_reveal_motion_that_the_crop_follows():
    points, shift = random_face(50), 20 * np.sin(np.arange(50) * 0.3)
    corners = np.array([[-0.5, -0.5], [-0.5, 255.5], [255.5, 255.5], [255.5, -0.5]]) * 256 / CROP_SIZE
    quads = np.tile(corners, (50, 1, 1))
    quads[:, :, 0] += shift[:, None]
    assert head_spread(head_pose(points)) == pytest.approx(0, abs=1e-12)
    assert head_spread(head_pose(points, quads)) == pytest.approx(shift.std() / 80)


def flicker_of(frames) -> float | None:
    meter = Flicker()
    meter.update(frames)
    return meter.value


def test_flicker():
    ramp = [np.full((8, 8, 3), 10 * t, np.uint8) for t in range(10)]
    assert flicker_of(ramp) == 0  # steady change is no flicker
    jump = [np.full((8, 8, 3), 100 + 6 * (t % 2), np.uint8) for t in range(10)]
    assert flicker_of(jump) == 12
    assert flicker_of([np.full((2, 2, 3), v, np.uint8) for v in (0, 255, 0)]) == 510  # uint8 would wrap to 2
    assert flicker_of(ramp[:2]) is None
