"""Leakage: how much the lips of a speech-driven face move when the sound is digital silence.

Frames are uint8 (H, W, 3).
"""

from collections.abc import Iterable
from itertools import islice

import numpy as np

from encoders.footage.faces import FaceDetector, face_in_crop
from encoders.geometry import aperture
from metrics.measures.lip_silence import mean_speed, ratio, speed
from metrics.scoring.score_clips import at_crop_size

LEAKAGE_FRAMES = 75  # frames of both videos, at most, that are compared: enough for a mean, and cheap


def leakage(
    silent: Iterable[np.ndarray], driven: Iterable[np.ndarray], detector: FaceDetector
) -> float | None:
    """Mean speed of the lip aperture over the face crops driven by silence, over that driven by the speech.

    0: the lips rest without sound; 1: they move as in speech. None if too few faces are found or the driven lips do not
    move either.
    """
    return ratio(*(lip_movement(frames, detector) for frames in (silent, driven)))


def lip_movement(frames: Iterable[np.ndarray], detector: FaceDetector) -> float | None:
    """Mean speed of lip aperture in the first LEAKAGE_FRAMES face crops, inter-ocular distances a second."""
    faces = [face_in_crop(detector, at_crop_size(frame)) for frame in islice(frames, LEAKAGE_FRAMES)]
    curve = [0.0 if face is None else float(aperture(face.landmarks)) for face in faces]
    return mean_speed(speed(np.array(curve), np.array([face is not None for face in faces], bool)))
