"""Identity embeddings: how alike two faces are, by dlib's ResNet (128-d, Euclidean distance).

The same person lies at about 0.3-0.4, different people at 0.7-0.85 (King 2017, dlib's face recognition model).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from encoders.faces import FaceError, dlib_model_path

MODEL = "dlib_face_recognition_resnet_model_v1.dat"


class DlibIdentity:
    """Embeds a face whose 68 landmarks are known."""

    name = "dlib-resnet-v1"

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError:
            raise FaceError("dlib is not installed; run: pip install dlib-bin") from None
        self._dlib: Any = dlib
        self._net = self._dlib.face_recognition_model_v1(str(dlib_model_path(MODEL)))

    def embed(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Image uint8 (H, W, 3), landmarks (68, 2) in its px -> embedding float32 (128,)."""
        points = np.asarray(landmarks)
        if points.shape != (68, 2) or not np.isfinite(points).all():
            raise ValueError(f"an embedding needs 68 finite landmarks, got shape {points.shape}")
        low, high = points.min(0), points.max(0)
        box = self._dlib.rectangle(*(int(v) for v in (*low, *high)))
        shape = self._dlib.full_object_detection(
            box, [self._dlib.point(int(x), int(y)) for x, y in points.round()]
        )
        vector = self._net.compute_face_descriptor(np.ascontiguousarray(image), shape)
        return np.array(vector, dtype=np.float32)


def identity_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Euclidean distance of two embeddings, in [0, 2]."""
    return float(np.linalg.norm(a - b))


def identity_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two embeddings, in [-1, 1]; CSIM, here with dlib's network, so different people still reach 0.8."""
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
