"""LMD (landmark distance): the mean distance between corresponding landmarks of two faces, in px."""

from __future__ import annotations

import numpy as np

from encoders.geometry import MOUTH, checked, norm


def landmark_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """LMD over all 68 points, mean_i |a_i - b_i|, (..., 68, 2) twice -> (...) px."""
    return norm(checked(a) - checked(b)).mean(axis=-1)


def mouth_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """LMD of the mouth, points 48-67 after subtracting each mouth's own centroid, (..., 68, 2) twice -> (...) px.

    With the centroids subtracted, only the mouths' shapes are compared, not the heads' positions (as in ATVGnet, Chen
    et al. 2019, which takes the sum over points instead of the mean).
    """
    mouth_a, mouth_b = checked(a)[..., MOUTH, :], checked(b)[..., MOUTH, :]
    mouth_a = mouth_a - mouth_a.mean(axis=-2, keepdims=True)
    mouth_b = mouth_b - mouth_b.mean(axis=-2, keepdims=True)
    return norm(mouth_a - mouth_b).mean(axis=-1)
