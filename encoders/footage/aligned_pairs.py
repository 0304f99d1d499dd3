"""Cuts a reference video and a prediction along the same face crops, in one pass and constant memory.

Each frame's FFHQ quad comes from the reference's landmarks, and the same part of the picture is cut from the
prediction. The prediction is therefore evaluated at the position of the true face.
Shapes: T frames, K quads, H height, W width.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from encoders.footage.align import ffhq_quad, quad_of, quad_parts
from encoders.footage.faces import FaceDetector
from encoders.footage.prepare import FaceTracker

X = TypeVar("X")
Unsmoothed = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]  # true frame, predicted frame, landmarks
# Relative difference of aspect ratios up to which two videos are taken to show the same picture area.
SAME_SHAPE = 0.02


@dataclass(frozen=True, eq=False)
class AlignedPair:
    """One frame of both videos with the reference's face."""

    true: np.ndarray  # uint8 (H, W, 3)
    predicted: np.ndarray | None  # uint8, its own (H, W, 3); None if the prediction has no usable frame
    quad: np.ndarray | None  # float32 (4, 2) px of the reference, smoothed; None before the first face
    landmarks: np.ndarray | None  # float32 (68, 2) px of the reference; None if no face was found

    @property
    def detected(self) -> bool:
        return self.landmarks is not None


def smoothed_stream(
    items: Iterable[tuple[X, np.ndarray | None]], sigma_centre: float = 1.0, sigma_axes: float = 3.0
) -> Iterator[tuple[X, np.ndarray | None]]:
    """(item, quad or None) -> (item, smoothed quad or None), ceil(4 sigma) items later: a streaming `smooth_quads`.

    q_t = sum_s g(s - t) q_s / sum_s g(s - t) over the frames s with a quad, where g is a Gaussian of sigma_centre for
    the quad's centre and of sigma_axes for its axes. A frame with no quad within the window repeats the previous
    smoothed quad (None at first).
    """
    reach = math.ceil(4 * max(sigma_centre, sigma_axes))
    past: deque[np.ndarray | None] = deque(maxlen=reach)  # quads only, to free earlier frames' memory
    ahead: deque[tuple[X, np.ndarray | None]] = deque()
    smoothed: np.ndarray | None = None
    weights = [_gaussian(np.arange(-reach, reach + 1), sigma) for sigma in (sigma_centre, sigma_axes)]

    def release() -> tuple[X, np.ndarray | None]:
        nonlocal smoothed
        window = [*past, *(quad for _, quad in ahead)]
        known = [(k - len(past) + reach, quad) for k, quad in enumerate(window) if quad is not None]
        if known:
            at = [k for k, _ in known]
            smoothed = _weighted_mean(np.stack([quad for _, quad in known]), [w[at] for w in weights])
        item, quad = ahead.popleft()
        past.append(quad)
        return item, smoothed

    for item in items:
        ahead.append(item)
        if len(ahead) > reach:
            yield release()
    while ahead:
        yield release()


def _gaussian(offsets: np.ndarray, sigma: float) -> np.ndarray:
    # The small constant avoids a weight of zero for distant frames, the only ones in a long gap.
    return np.exp(-0.5 * (offsets / sigma) ** 2) + 1e-9 if sigma > 0 else (offsets == 0) + 1e-9


def _weighted_mean(quads_K42: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """The centre averaged with the first weights (K,), the axes with the second: float32 (4, 2)."""
    parts = zip(quad_parts(quads_K42), (weights[0], weights[1], weights[1]), strict=True)
    return quad_of(*(np.average(part, axis=0, weights=w) for part, w in parts))


def aligned_pairs(
    true_frames: Iterable[np.ndarray],
    predicted_frames: Iterable[np.ndarray | None],
    detector: FaceDetector,
) -> Iterator[AlignedPair]:
    """One AlignedPair per frame; both videos must have the same number of frames."""
    tracker = FaceTracker(detector)

    def tracked() -> Iterator[tuple[Unsmoothed, np.ndarray | None]]:
        for true, predicted in zip(true_frames, predicted_frames, strict=False):
            face = tracker(true)
            points = None if face is None else face.landmarks
            yield (true, predicted, points), None if points is None else ffhq_quad(points)

    for (true, predicted, points), quad in smoothed_stream(tracked()):
        yield AlignedPair(true, predicted, quad, points)


def same_shape(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two frames (H, W, 3) have the same aspect ratio, so that relative positions correspond."""
    ratio_a, ratio_b = (frame.shape[1] / frame.shape[0] for frame in (a, b))
    return abs(ratio_a / ratio_b - 1) <= SAME_SHAPE


def scaled_quad(quad: np.ndarray, shape: tuple[int, ...], other: tuple[int, ...]) -> np.ndarray:
    """A quad (4, 2) px of a frame of `shape` (H, W, ...) -> px of the same picture at size `other`."""
    scale = np.array([other[1] / shape[1], other[0] / shape[0]])
    return ((np.asarray(quad, dtype=np.float64) + 0.5) * scale - 0.5).astype(np.float32)
