"""The motion of head and eyelids as tracks over time, and how they are read from a video's landmarks.

    roll, x, y, scale   the line and the middle of the eyes' corners, in the source frame
    yaw, pitch          the nose tip's offset from that middle, along the line and across it, in inter-ocular distances
    lids                1 - (openness of the eyes / its median over the clip), scaled so that closed lids give 1

Shapes: T frames at 25 fps, P = 6 axes of the pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from encoders.footage.align import interpolate_missing
from encoders.geometry import eye_openness, norm

POSE_AXES = ("yaw", "pitch", "roll", "x", "y", "scale")
EYE_CORNERS = ((36, 39), (42, 45))
NOSE_TIP = 30
# The nose tip lies 0.57 inter-ocular distances before the eyes, so that a degree moves it by 0.01. Faces differ from
# this by about a fifth, and yaw and pitch with them.
DEGREE = 0.01
# Share of the openness below which lids begin to count as closing, and that of closed lids; dlib's landmarks of closed
# lids do not meet.
OPEN, CLOSED = 0.85, 0.45
HALF_SHUT = 0.3  # closure above which a frame belongs to a blink
JITTER_SIGMA = 1.5  # frames, of the Gaussian that removes the landmarks' jitter from the pose


@dataclass(frozen=True, eq=False)
class MotionTrack:
    """Motion relative to rest. Raises ValueError for arrays of other shapes or values that are not finite.

    pose: float32 (T, 6): yaw (degrees, > 0: the nose to the image's right), pitch (degrees, > 0: down), roll (degrees,
    > 0: clockwise), x and y (inter-ocular distances, to the right and down), and the natural logarithm of the size.
    lids: float32 (T,), closure of the eyelids in [0, 1]; 0 is open.
    """

    pose: np.ndarray
    lids: np.ndarray

    def __post_init__(self) -> None:
        frames = len(self.lids)
        if self.pose.shape != (frames, len(POSE_AXES)) or self.lids.shape != (frames,) or frames == 0:
            raise ValueError(
                f"expected a pose (T, 6) and lids (T,), got {self.pose.shape}, {self.lids.shape}"
            )
        if not (np.isfinite(self.pose).all() and np.isfinite(self.lids).all()):
            raise ValueError("a motion track holds values that are not finite")

    def __len__(self) -> int:
        return len(self.lids)

    @classmethod
    def at_rest(cls, frames: int) -> MotionTrack:
        return cls(np.zeros((frames, len(POSE_AXES)), np.float32), np.zeros(frames, np.float32))

    def forth_and_back(self, frames: int) -> MotionTrack:
        """The first `frames` frames; a shorter track is played forwards and backwards in turn."""
        period = np.concatenate([np.arange(len(self)), np.arange(len(self) - 2, 0, -1)])
        index = np.resize(period, frames)
        return MotionTrack(self.pose[index], self.lids[index])


def pose_of(landmarks: np.ndarray, unit: float | None = None) -> np.ndarray:
    """Pose of landmarks (T, 68, 2) px, not relative to rest: float64 (T, 6), see `MotionTrack`.

    unit: length in px in which x, y and scale are measured. None: the median inter-ocular distance of these frames.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    left, right = (points[:, list(corners)].mean(1) for corners in EYE_CORNERS)
    across, middle = right - left, (left + right) / 2
    distance = norm(across)
    unit = unit or float(np.median(distance))
    along = across / distance[:, None]
    nose = (points[:, NOSE_TIP] - middle) / distance[:, None]
    yaw = (nose * along).sum(1) / DEGREE
    pitch = (nose[:, 1] * along[:, 0] - nose[:, 0] * along[:, 1]) / DEGREE
    roll = np.degrees(np.arctan2(across[:, 1], across[:, 0]))
    return np.column_stack([yaw, pitch, roll, middle / unit, np.log(distance / unit)])


def lid_closure(landmarks: np.ndarray) -> np.ndarray:
    """Closure of the eyelids, (T, 68, 2) px -> (T,) in [0, 1], relative to the median openness of these frames."""
    openness = eye_openness(landmarks)
    return np.clip((OPEN - openness / np.median(openness)) / (OPEN - CLOSED), 0, 1)


def raw_pose(landmarks: np.ndarray, detected: np.ndarray) -> np.ndarray:
    """Pose with the landmarks' jitter, minus its median: landmarks (T, 68, 2) px of the source frames -> float64 (T, 6).

    The eyes' corners shift in a blink, so the pose of these frames and of those that are not detected (T,) is
    interpolated.
    """
    from scipy.ndimage import binary_dilation

    pose = pose_of(landmarks)
    unsure = binary_dilation(lid_closure(landmarks) > HALF_SHUT) | ~detected
    if not unsure.all():
        pose = interpolate_missing(pose, ~unsure)
    return pose - np.median(pose, axis=0)


def track_of_landmarks(landmarks: np.ndarray, detected: np.ndarray) -> MotionTrack:
    """Motion of head and eyelids in a video; rest is the median pose and the median openness of the eyes.

    landmarks: (T, 68, 2) px of the source frames. detected: bool (T,), False where no face was found.
    """
    from scipy.ndimage import gaussian_filter1d

    pose = gaussian_filter1d(raw_pose(landmarks, detected), JITTER_SIGMA, axis=0, mode="nearest")
    return MotionTrack(pose.astype(np.float32), lid_closure(landmarks).astype(np.float32))
