"""Leakage with a detector whose lip aperture is proportional to the brightness of a frame."""

import numpy as np
import pytest
from drawn_face import landmarks

from encoders.footage.faces import Face
from metrics.scoring.leakage import LEAKAGE_FRAMES, leakage, lip_movement


class Reader:
    name = "reader"

    def __call__(self, image: np.ndarray, near: np.ndarray | None = None) -> list[Face]:
        level = int(image[0, 0, 0])
        return [] if level == 0 else [Face(np.array([60, 80, 196, 216], np.float32), landmarks(level))]


def frames(step: int, count: int = 12):
    return (np.full((256, 256, 3), 10 + step * (t % 2), np.uint8) for t in range(count))


def test_leakage_is_a_ratio_of_lip_movements():
    # `step` px per frame over the 80 px between the eyes
    assert lip_movement(frames(8), Reader()) == pytest.approx(8 / 80 * 25)
    for step in (0, 2, 8):
        assert leakage(frames(step), frames(8), Reader()) == pytest.approx(step / 8)


def test_no_leakage_without_movement_or_faces():
    assert leakage(frames(4), frames(0), Reader()) is None
    blank = [np.zeros((256, 256, 3), np.uint8)] * 12
    assert leakage(blank, frames(4), Reader()) is None and leakage(frames(4), blank, Reader()) is None


def test_only_the_first_frames_are_read():
    endless = iter(frames(4, 1000))
    lip_movement(endless, Reader())
    assert len(list(endless)) == 1000 - LEAKAGE_FRAMES
