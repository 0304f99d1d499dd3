"""Tracks of head and eyelids, from landmarks whose motion is known."""

import numpy as np
import pytest
from drawn_face import random_face

from trajectory.motion.tracks import (
    POSE_AXES,
    MotionTrack,
    lid_closure,
    pose_of,
    raw_pose,
    track_of_landmarks,
)


def similar(points: np.ndarray, degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    """Points turned clockwise in the image about the middle of the eyes, resized and shifted in px."""
    a = np.radians(degrees)
    turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    middle = np.array([128.0, 110.0])
    return (points - middle) @ turn * scale + middle + shift


def test_pose_is_that_of_a_known_similarity_and_nose():
    face = random_face(1)[0]
    face[30] = 128 + 0.05 * 80, 110 + 0.4 * 80
    moved = similar(face, 7.0, 1.1, (8.0, -4.0))
    pose = pose_of(np.stack([face, moved]), unit=80)
    np.testing.assert_allclose(pose[:, :2], [[5, 40], [5, 40]])  # hundredths of the distance between the eyes
    np.testing.assert_allclose(
        pose[1, 2:] - pose[0, 2:], [7, 8 / 80, -4 / 80, np.log(1.1)], atol=1e-9, err_msg=str(POSE_AXES)
    )


def test_closure_is_0_for_open_and_1_for_closed_lids_of_any_face():
    faces = random_face(9)
    upper, lower = [37, 38, 43, 44], [40, 41, 46, 47]
    faces[4][upper, 1], faces[4][lower, 1] = 110 - 4 * 0.4, 110 + 4 * 0.4
    faces[5][upper, 1], faces[5][lower, 1] = 110 - 4 * 0.65, 110 + 4 * 0.65
    closure = lid_closure(faces)
    np.testing.assert_allclose(closure[[0, 3, 4, 5, 8]], [0, 0, 1, 0.5, 0], atol=1e-9)
    np.testing.assert_allclose(lid_closure(3 * faces), closure)


def test_blinks_and_missing_faces_do_not_move_the_head():
    faces = random_face(40)
    faces[10:13, [37, 38, 43, 44], 1] += 6
    faces[10:13, 36:48, 1] += 5  # dlib moves the whole eye with the lid
    faces[20] += 50
    detected = np.arange(40) != 20
    assert np.abs(raw_pose(faces, detected)).max() < 1e-9
    assert np.abs(raw_pose(faces, np.ones(40, bool))).max() > 0.5
    track = track_of_landmarks(faces, detected)
    assert track.lids[11] == 1 and not track.lids[:9].any()


def test_a_short_track_goes_forth_and_back():
    pose = np.repeat(np.arange(4, dtype=np.float32)[:, None], 6, 1)
    track = MotionTrack(pose, np.arange(4, dtype=np.float32) / 4)
    assert track.forth_and_back(10).pose[:, 3].tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert len(track.forth_and_back(2)) == 2
    assert len(MotionTrack.at_rest(1).forth_and_back(3)) == 3


@pytest.mark.parametrize(
    ("pose", "lids"),
    [
        (np.zeros((3, 5)), np.zeros(3)),
        (np.zeros((3, 6)), np.zeros(4)),
        (np.zeros((0, 6)), np.zeros(0)),
        (np.full((3, 6), np.nan), np.zeros(3)),
    ],
)
def test_other_arrays_are_refused(pose, lids):
    with pytest.raises(ValueError, match=r"motion track|expected a pose"):
        MotionTrack(pose, lids)
