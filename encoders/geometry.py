"""Openings and widths of a face, measured on its landmarks. Training, the synthetic corpus and metrics share these
definitions.

Landmarks are the 68 iBUG points counted from 0 (17-21 and 22-26 brows, 36-41 and 42-47 eyes, 48-59 outer lips, 60-67 inner
lips), given as (..., 68, 2) in px; all functions of landmarks broadcast over the leading dimensions. LMD: encoders/lmd.py.
"""

from __future__ import annotations

import numpy as np

BROW_LEFT, BROW_RIGHT = slice(17, 22), slice(22, 27)
EYE_LEFT, EYE_RIGHT = slice(36, 42), slice(42, 48)  # left and right in the image
MOUTH = slice(48, 68)
MOUTH_LEFT, MOUTH_RIGHT = 48, 54  # corners
LIP_UPPER, LIP_LOWER = 62, 66  # middle of the inner lips
CONSTANT = 1e-6  # standard deviation below which a curve counts as constant


def norm(v: np.ndarray) -> np.ndarray:
    """Length of vectors, (..., 2) -> (...)."""
    return np.linalg.norm(v, axis=-1)


def checked(landmarks: np.ndarray) -> np.ndarray:
    """(..., 68, 2) in float64; ValueError for any other shape."""
    points = np.asarray(landmarks, dtype=np.float64)
    if points.ndim < 2 or points.shape[-2:] != (68, 2):
        raise ValueError(f"landmarks must end in (68, 2), got {points.shape}")
    return points


def eye_centres(landmarks: np.ndarray) -> np.ndarray:
    """Mean of each eye's points, (..., 68, 2) px -> (..., 2, 2) px: the image's left eye, then the right one."""
    points = checked(landmarks)
    return np.stack(
        [points[..., EYE_LEFT, :].mean(axis=-2), points[..., EYE_RIGHT, :].mean(axis=-2)], axis=-2
    )


def inter_ocular(landmarks: np.ndarray) -> np.ndarray:
    """Distance between the eye centres, (..., 68, 2) px -> (...) px."""
    eyes = eye_centres(landmarks)
    return norm(eyes[..., 1, :] - eyes[..., 0, :])


def _ratio(length: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """length / unit, nan where the unit is 0 (all points coincide)."""
    return np.divide(length, unit, out=np.full_like(length, np.nan), where=unit > 0)


def aperture(landmarks: np.ndarray) -> np.ndarray:
    """Opening of the inner lips, |p62 - p66| / inter-ocular distance, (..., 68, 2) -> (...); 0 = closed."""
    points = checked(landmarks)
    return _ratio(norm(points[..., LIP_UPPER, :] - points[..., LIP_LOWER, :]), inter_ocular(points))


def width(landmarks: np.ndarray) -> np.ndarray:
    """Distance of the mouth's corners, |p48 - p54| / inter-ocular distance, (..., 68, 2) -> (...)."""
    points = checked(landmarks)
    return _ratio(norm(points[..., MOUTH_LEFT, :] - points[..., MOUTH_RIGHT, :]), inter_ocular(points))


def brow_height(landmarks: np.ndarray) -> np.ndarray:
    """Height of the brows above the eyes, (..., 68, 2) -> (...): distance of the mean of each brow's points from the centre
    of its eye, mean of both sides, over the inter-ocular distance.
    """
    points, eyes = checked(landmarks), eye_centres(landmarks)
    brows = np.stack([points[..., side, :].mean(axis=-2) for side in (BROW_LEFT, BROW_RIGHT)], axis=-2)
    return _ratio(norm(brows - eyes).mean(axis=-1), inter_ocular(points))


def eye_openness(landmarks: np.ndarray) -> np.ndarray:
    """Eye aspect ratio (Soukupova and Cech 2016), mean of both eyes, (..., 68, 2) -> (...); it drops in a blink.

    EAR = (|p1 - p5| + |p2 - p4|) / (2 |p0 - p3|) with p0..p5 the eye's six points.
    """
    points = checked(landmarks)

    def aspect(eye: np.ndarray) -> np.ndarray:
        height = norm(eye[..., 1, :] - eye[..., 5, :]) + norm(eye[..., 2, :] - eye[..., 4, :])
        return _ratio(height, 2.0 * norm(eye[..., 0, :] - eye[..., 3, :]))

    return (aspect(points[..., EYE_LEFT, :]) + aspect(points[..., EYE_RIGHT, :])) / 2.0


def correlation(predicted: np.ndarray, true: np.ndarray) -> float:
    """Pearson correlation of two curves (T,) at lag 0; 0 if one of them is constant."""
    if predicted.shape != true.shape or predicted.ndim != 1:
        raise ValueError(f"expected two curves of one length, got {predicted.shape} and {true.shape}")
    if len(true) < 2:
        return 0.0
    a, b = predicted.astype(np.float64), true.astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    if min(a.std(), b.std()) < CONSTANT:
        return 0.0
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))
