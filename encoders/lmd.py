"""LMD, the landmark distance of two faces."""

from __future__ import annotations

import numpy as np

from encoders.geometry import MOUTH, checked, norm


def landmark_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """LMD over all 68 points: the mean over points of |a_i - b_i|, (..., 68, 2) twice -> (...) px."""
    return norm(checked(a) - checked(b)).mean(axis=-1)


def mouth_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """LMD of the mouth: points 48-67, each set's own centroid removed, mean over points, (...) px.

    Removing the centroid measures the mouth's shape and not where the head is (ATVGnet, but the mean, not the sum).
    """
    mouth_a, mouth_b = checked(a)[..., MOUTH, :], checked(b)[..., MOUTH, :]
    mouth_a = mouth_a - mouth_a.mean(axis=-2, keepdims=True)
    mouth_b = mouth_b - mouth_b.mean(axis=-2, keepdims=True)
    return norm(mouth_a - mouth_b).mean(axis=-1)
