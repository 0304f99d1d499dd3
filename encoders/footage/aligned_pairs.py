"""Two videos -> pairs of aligned crops, one pass, constant memory: the reference decides where to look.

Each frame's FFHQ quad comes from the reference's landmarks; the same quad, in proportion, cuts the other video. So a
method is judged on what it shows where the true face is, and both crops show the same part of the picture.
Shape legend: T frames, H height, W width.
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
SAME_SHAPE = (
    0.02  # relative difference of aspect ratios up to which two videos show the same part of the world
)


@dataclass(frozen=True, eq=False)
class Aligned:
    """One frame of both videos: uint8 (H, W, 3), the prediction None where it has no usable frame.

    quad float32 (4, 2) px of the reference (None before any face was seen); found: whether this very frame showed one.
    """

    true: np.ndarray
    predicted: np.ndarray | None
    quad: np.ndarray | None
    landmarks: np.ndarray | None

    @property
    def found(self) -> bool:
        return self.landmarks is not None


def smoothed_stream(
    items: Iterable[tuple[X, np.ndarray | None]], sigma_centre: float = 1.0, sigma_axes: float = 3.0
) -> Iterator[tuple[X, np.ndarray | None]]:
    """(item, quad or None) -> (item, smoothed quad or None), ceil(4 sigma) items later: align.smooth_quads as a stream.

    q_t = sum_s g(s - t) q_s / sum_s g(s - t) over the frames s that have a quad: a Gaussian of sigma_centre for the
    centre and of sigma_axes for the two axes. A frame without any in reach holds the quad before it, None at first.
    """
    reach = math.ceil(4 * max(sigma_centre, sigma_axes))
    past: deque[np.ndarray | None] = deque(maxlen=reach)  # quads only: items that are done are let go
    ahead: deque[tuple[X, np.ndarray | None]] = deque()
    held: np.ndarray | None = None
    weights = [_gaussian(np.arange(-reach, reach + 1), sigma) for sigma in (sigma_centre, sigma_axes)]

    def due() -> tuple[X, np.ndarray | None]:
        nonlocal held
        near = [*past, *(quad for _, quad in ahead)]
        known = [(k - len(past) + reach, quad) for k, quad in enumerate(near) if quad is not None]
        if known:
            at = [k for k, _ in known]
            held = _weighted(np.stack([quad for _, quad in known]), [w[at] for w in weights])
        item, quad = ahead.popleft()
        past.append(quad)
        return item, held

    for item in items:
        ahead.append(item)
        if len(ahead) > reach:
            yield due()
    while ahead:
        yield due()


def _gaussian(offsets: np.ndarray, sigma: float) -> np.ndarray:
    # A floor keeps far frames usable where a long gap leaves no near ones.
    return np.exp(-0.5 * (offsets / sigma) ** 2) + 1e-9 if sigma > 0 else (offsets == 0) + 1e-9


def _weighted(quads_K42: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """Centre by the first weights (K,), axes by the second: float32 (4, 2)."""
    near = (weights[0], weights[1], weights[1])
    parts = zip(quad_parts(quads_K42), near, strict=True)
    return quad_of(*(np.average(part, axis=0, weights=w) for part, w in parts))


def aligned_pairs(
    true_frames: Iterable[np.ndarray],
    predicted_frames: Iterable[np.ndarray | None],
    detector: FaceDetector,
    sigma_centre: float = 1.0,
    sigma_axes: float = 3.0,
) -> Iterator[Aligned]:
    """Pairs of frames with the quad of each; the reference's length decides, the other must have as many."""
    tracker = FaceTracker(detector)

    def tracked() -> Iterator[
        tuple[tuple[np.ndarray, np.ndarray | None, np.ndarray | None], np.ndarray | None]
    ]:
        for true, predicted in zip(true_frames, predicted_frames, strict=False):
            face = tracker(true)
            points = None if face is None else face.landmarks
            yield (true, predicted, points), None if points is None else ffhq_quad(points)

    for (true, predicted, points), quad in smoothed_stream(tracked(), sigma_centre, sigma_axes):
        yield Aligned(true, predicted, quad, points)


def same_shape(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two frames (H, W, 3) have one aspect ratio, so that a place in one is a place in the other."""
    ratio_a, ratio_b = (frame.shape[1] / frame.shape[0] for frame in (a, b))
    return abs(ratio_a / ratio_b - 1) <= SAME_SHAPE


def scaled_quad(quad: np.ndarray, shape: tuple[int, ...], other: tuple[int, ...]) -> np.ndarray:
    """A quad (4, 2) px of a frame of `shape` (H, W, ...) -> px of the same picture at size `other`."""
    scale = np.array([other[1] / shape[1], other[0] / shape[0]])
    return ((np.asarray(quad, dtype=np.float64) + 0.5) * scale - 0.5).astype(np.float32)
