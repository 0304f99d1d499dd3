"""Measures of motion other than that of the lips: blinks, head pose, and temporal flicker of the image.

T frames at 25 fps; landmarks (T, 68, 2) px of the aligned crop; quads (T, 4, 2): corners of the crop in px of the frame.
"""

from collections.abc import Iterable

import numpy as np

from audio.timing import FPS
from encoders.footage.align import points_in_frame
from encoders.geometry import eye_centres, eye_openness, inter_ocular

BLINK = 0.7  # eyes count as closed below this share of the clip's median openness
BLINK_FRAMES = 2  # shortest blink (80 ms); a single frame is jitter of the landmark detector
NOSE_TIP = 30


def blinks(openness: np.ndarray) -> int:
    """Number of blinks in a curve of eye openness (T,): runs of at least 2 frames below 0.7 x the curve's median.

    A run at the very start is not counted. The threshold is relative to the clip's median, so that narrow eyes do not
    count as closed.
    """
    closed = np.concatenate([[False], openness < BLINK * np.median(openness), [False]]).astype(np.int8)
    edges = np.diff(closed)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return int(((ends - starts >= BLINK_FRAMES) & (starts > 0)).sum())


def blink_rate(landmarks: np.ndarray) -> float:
    """Blinks per minute; people blink 15 to 20 times."""
    return blinks(eye_openness(landmarks)) * 60.0 * FPS / len(landmarks)


def head_pose(landmarks: np.ndarray, quads: np.ndarray | None = None) -> np.ndarray:
    """Pose (T, 5): midpoint of the eyes (x, y), roll (radians), turn and nod; lengths in inter-ocular distances.

    Turn and nod are the offset of the nose tip from the midpoint of the eyes, along the eye line and across it. With
    quads the landmarks are first mapped from the crop back to the frame: inside the crop, which follows the true head,
    its motion could not be measured.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if quads is not None:
        points = points_in_frame(points, quads)
    eyes = eye_centres(points)
    across = eyes[:, 1] - eyes[:, 0]
    # One unit of length for the whole clip, so that a head that approaches the camera counts as motion
    scale = float(np.median(inter_ocular(points))) or 1.0
    middle = eyes.mean(axis=1)
    along = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    nose = (points[:, NOSE_TIP] - middle) / scale
    turn = (nose * along).sum(axis=1)
    nod = nose[:, 1] * along[:, 0] - nose[:, 0] * along[:, 1]
    return np.column_stack([middle / scale, np.arctan2(across[:, 1], across[:, 0]), turn, nod])


def head_spread(pose: np.ndarray) -> float:
    """Square root of the summed variances over time of a pose (T, 5) or of the difference of two poses."""
    return float(np.sqrt(pose.var(axis=0).sum()))


class Flicker:
    """Temporal flicker of a stream of uint8 frames: mean |x_t - 2 x_{t-1} + x_{t-2}| over pixels, in grey levels.

    Linear change and a frozen image give 0; alternating brightness gives a positive value. Noise and compression of the
    true video contribute as well; the value of the ground_truth row shows how much.
    """

    def __init__(self) -> None:
        self._previous: list[np.ndarray] = []  # the last two frames, int16
        self._sum, self._n = 0.0, 0

    def update(self, frames: Iterable[np.ndarray]) -> None:
        for frame in frames:
            current = np.asarray(frame, dtype=np.int16)
            if len(self._previous) == 2:
                self._sum += float(np.abs(current - 2 * self._previous[1] + self._previous[0]).mean())
                self._n += 1
            self._previous = [*self._previous[-1:], current]

    @property
    def value(self) -> float | None:
        """None for fewer than three frames."""
        return self._sum / self._n if self._n else None
