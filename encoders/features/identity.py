"""Identity embeddings of faces: dlib's ResNet (128 numbers) and ArcFace (IR-SE50, 512 numbers).

dlib's embeddings are compared by Euclidean distance: about 0.3-0.4 for the same person, 0.7-0.85 for different people
(King 2017). ArcFace's (Deng et al. 2019) are compared by cosine, the identity measure of most papers (CSIM, "ID"); its
weights are not shipped. Values of the two measures are not comparable. encoders/features/sface.py is a third judge.

DlibIdentity runs dlib itself; encoders/features/dlib_resnet.py holds the same network with gradients, for fits and losses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from encoders.footage.faces import FaceError, dlib_model_path
from encoders.networks.ir_se import IdentityNet, identity_from_public
from stylegan2.images import to_tensor
from stylegan2.public.catalogue import demanded, path_of
from stylegan2.public.checkpoints import read_public_checkpoint
from stylegan2.weights import WeightsError

MODEL = "dlib_face_recognition_resnet_model_v1.dat"


class DlibIdentity:
    name = "dlib-resnet-v1"

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError:
            raise FaceError("dlib is not installed; run: pip install dlib-bin") from None
        self._dlib: Any = dlib
        self._net = self._dlib.face_recognition_model_v1(str(dlib_model_path(MODEL)))

    def embed(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Image uint8 (H, W, 3), landmarks (68, 2) in px of the image -> embedding float32 (128,)."""
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


class ArcFaceIdentity:
    """Embeds FFHQ-aligned faces as unit vectors, whose dot product is their cosine."""

    name = "arcface-ir-se50"

    def __init__(self, net: IdentityNet, chunk: int = 16) -> None:
        self.net, self.chunk = net.eval(), chunk

    @torch.inference_mode()
    def embed(self, frames_NHWC: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) -> unit vectors float32 (N, 512) of the crop that pSp's identity loss uses."""
        device = next(self.net.parameters()).device
        parts = [
            self.net(to_tensor(frames_NHWC[first : first + self.chunk], device)).cpu().numpy()
            for first in range(0, len(frames_NHWC), self.chunk)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.net.width), np.float32)


def arcface_path() -> Path:
    """Where the public IR-SE50 weights (model_ir_se50.pth) are expected."""
    return path_of("ir_se50")


def load_arcface(path: str | Path | None = None, device: torch.device | str = "cpu") -> ArcFaceIdentity:
    """ArcFace from the public IR-SE50 weights, by default at `arcface_path`; WeightsError if missing or of another kind."""
    path = demanded("ir_se50", "ArcFace", path)
    try:
        net = identity_from_public(read_public_checkpoint(path).encoder)
    except WeightsError as error:
        raise error if str(path) in str(error) else WeightsError(f"{path}: {error}") from error
    return ArcFaceIdentity(net.to(device))


def arcface_or_none(
    path: str | Path | None = None, device: torch.device | str = "cpu"
) -> tuple[ArcFaceIdentity | None, str | None]:
    """(ArcFace, None), or (None, the reason) if its weights are missing or damaged. Downloads nothing."""
    try:
        return load_arcface(path, device), None
    except WeightsError as error:
        return None, str(error)


def identity_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Euclidean distance of two embeddings, in [0, 2]."""
    return float(np.linalg.norm(a - b))


def identity_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """CSIM: the cosine of two embeddings, in [-1, 1]. With dlib's network it can reach 0.8 for different people."""
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
