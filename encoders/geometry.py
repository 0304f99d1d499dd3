"""Distances between facial landmarks: the mouth's aperture and width, and the distance of two faces; how well two of
their curves agree.

Training, corpus and metrics all measure with these functions, so that they mean the same thing by "open".
Every function of landmarks takes the 68 iBUG points counted from 0 (36-41 and 42-47 eyes, 48-59 outer and 60-67 inner lip)
as (..., 68, 2) in pixels and broadcasts over the leading dimensions.
"""

from __future__ import annotations

import numpy as np

EYE_ONE = slice(36, 42)  # the eye on the image's left
EYE_TWO = slice(42, 48)
MOUTH = slice(48, 68)
MOUTH_LEFT, MOUTH_RIGHT = 48, 54
CONSTANT = 1e-6  # standard deviation below which a curve is a constant
LIP_UPPER, LIP_LOWER = 62, 66  # the inner contour's middle, above and below


def norm(v: np.ndarray) -> np.ndarray:
    return np.linalg.norm(v, axis=-1)


def checked(landmarks: np.ndarray) -> np.ndarray:
    """(..., 68, 2) in float64; ValueError for any other shape."""
    points = np.asarray(landmarks, dtype=np.float64)
    if points.ndim < 2 or points.shape[-2:] != (68, 2):
        raise ValueError(f"landmarks must end in (68, 2), got {points.shape}")
    return points


def eye_centres(landmarks: np.ndarray) -> np.ndarray:
    """(..., 68, 2) px -> (..., 2, 2) px: the mean of the image-left eye's points, then of the image-right eye's."""
    points = checked(landmarks)
    return np.stack([points[..., EYE_ONE, :].mean(axis=-2), points[..., EYE_TWO, :].mean(axis=-2)], axis=-2)


def inter_ocular(landmarks: np.ndarray) -> np.ndarray:
    """(..., 68, 2) px -> (...) px: the distance between the eye centres."""
    eyes = eye_centres(landmarks)
    return norm(eyes[..., 1, :] - eyes[..., 0, :])


def _relative(length: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    # Points that all coincide have no scale: nan says so, where a division warning would only be noise.
    iod = inter_ocular(landmarks)
    return np.divide(length, iod, out=np.full_like(length, np.nan), where=iod > 0)


def aperture(landmarks: np.ndarray) -> np.ndarray:
    """|p62 - p66| / inter-ocular distance, (..., 68, 2) -> (...): how far the inner lips are apart, 0 = closed."""
    points = checked(landmarks)
    return _relative(norm(points[..., LIP_UPPER, :] - points[..., LIP_LOWER, :]), points)


def width(landmarks: np.ndarray) -> np.ndarray:
    """|p48 - p54| / inter-ocular distance, (..., 68, 2) -> (...): the distance of the mouth's corners."""
    points = checked(landmarks)
    return _relative(norm(points[..., MOUTH_LEFT, :] - points[..., MOUTH_RIGHT, :]), points)


def eye_openness(landmarks: np.ndarray) -> np.ndarray:
    """Eye aspect ratio (Soukupova and Cech 2016), the mean of both eyes, (..., 68, 2) -> (...): drops in a blink.

    EAR = (|p1 - p5| + |p2 - p4|) / (2 |p0 - p3|) with p0..p5 the eye's six points.
    """
    points = checked(landmarks)

    def ratio(eye: np.ndarray) -> np.ndarray:
        height = norm(eye[..., 1, :] - eye[..., 5, :]) + norm(eye[..., 2, :] - eye[..., 4, :])
        base = 2.0 * norm(eye[..., 0, :] - eye[..., 3, :])
        return np.divide(height, base, out=np.full_like(height, np.nan), where=base > 0)

    return (ratio(points[..., EYE_ONE, :]) + ratio(points[..., EYE_TWO, :])) / 2.0


def correlation(predicted: np.ndarray, true: np.ndarray) -> float:
    """Pearson correlation of two curves (T,) at lag 0; 0 where one of them is constant."""
    if predicted.shape != true.shape or predicted.ndim != 1:
        raise ValueError(f"expected two curves of one length, got {predicted.shape} and {true.shape}")
    if len(true) < 2:
        return 0.0
    a, b = predicted.astype(np.float64), true.astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    if min(a.std(), b.std()) < CONSTANT:
        return 0.0
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))
