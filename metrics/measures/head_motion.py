"""What moves besides the lips: blinks, the head, and the flicker of the picture.

T frames at 25 fps; landmarks (T, 68, 2) px of the aligned crop; quads (T, 4, 2) px of the frame.
"""

from collections.abc import Iterable

import numpy as np

from audio.timing import FPS
from encoders.footage.align import points_in_frame
from encoders.geometry import eye_centres, eye_openness, inter_ocular

BLINK = 0.7  # share of the clip's own median eye openness below which the eyes are closed
BLINK_FRAMES = 2  # a blink lasts at least so long (80 ms); one frame is the judge's jitter
NOSE_TIP = 30


def blinks(openness: np.ndarray) -> int:
    """Blinks in a curve of eye openness (T,): runs of at least two frames below 0.7 x its median, opened before.

    The threshold is the clip's own, so narrow eyes do not count as closed ones.
    """
    closed = np.concatenate([[False], openness < BLINK * np.median(openness), [False]]).astype(np.int8)
    edges = np.diff(closed)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return int(((ends - starts >= BLINK_FRAMES) & (starts > 0)).sum())


def blink_rate(landmarks: np.ndarray) -> float:
    """Blinks a minute; people do 15 to 20."""
    return blinks(eye_openness(landmarks)) * 60.0 * FPS / len(landmarks)


def head_pose(landmarks: np.ndarray, quads: np.ndarray | None = None) -> np.ndarray:
    """(T, 5): where the eyes' middle is (x, y over the inter-ocular distance), roll (radians), turn and nod.

    Turn and nod are the nose tip's place beside and below the eyes' middle, along the eye line and across it, over
    the inter-ocular distance. With quads the landmarks are put back into the frame first, because the crop follows
    the true head and would hide its motion.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if quads is not None:
        points = points_in_frame(points, quads)
    eyes = eye_centres(points)
    across = eyes[:, 1] - eyes[:, 0]
    # One unit of length for the clip: a head that comes nearer moves, it does not shrink the world.
    scale = float(np.median(inter_ocular(points))) or 1.0
    middle = eyes.mean(axis=1)
    along = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    nose = (points[:, NOSE_TIP] - middle) / scale
    turn = (nose * along).sum(axis=1)
    nod = nose[:, 1] * along[:, 0] - nose[:, 0] * along[:, 1]
    return np.column_stack([middle / scale, np.arctan2(across[:, 1], across[:, 0]), turn, nod])


def head_spread(pose: np.ndarray) -> float:
    """Square root of the summed variances over time of a pose (T, 5), or of the difference of two poses."""
    return float(np.sqrt(pose.var(axis=0).sum()))


class Flicker:
    """Temporal flicker of a stream of frames: the mean |x_t - 2 x_{t-1} + x_{t-2}| over pixels, grey levels of 255.

    Steady motion cancels and a frozen picture gives 0; what jumps back and forth remains. The truth's own value
    (its noise and compression) stands in the ground_truth row.
    """

    def __init__(self) -> None:
        self._before: list[np.ndarray] = []
        self._sum, self._n = 0.0, 0

    def update(self, frames: Iterable[np.ndarray]) -> None:
        for frame in frames:
            now = np.asarray(frame, dtype=np.int16)
            if len(self._before) == 2:
                self._sum += float(np.abs(now - 2 * self._before[1] + self._before[0]).mean())
                self._n += 1
            self._before = [*self._before[-1:], now]

    @property
    def value(self) -> float | None:
        """None for fewer than three frames."""
        return self._sum / self._n if self._n else None
