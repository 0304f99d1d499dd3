"""Scores one video against its truth while both are decoded; only the current batch of frames, landmarks and mouth crops
are in memory.

Rows of one pair: the method itself, ground_truth (the truth against itself), static (the truth's identity frame, repeated)
and shift_5 (the method's landmarks and sync embeddings five frames late; it has no image figures).
Shapes: T frames, landmarks (T, 68, 2) px of the 256 px face crop.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from audio.silence import silent_frames
from audio.timing import SAMPLES_PER_FRAME
from encoders.features.mouth_crop import MOUTH_PLACE
from encoders.footage.align import CROP_SIZE, crop, transform_points
from encoders.footage.aligned_pairs import AlignedPair, aligned_pairs, same_shape, scaled_quad
from encoders.footage.faces import Face, face_in_crop
from encoders.lmd import mouth_distance
from metrics.measures.kid import Features
from metrics.scoring.control_baselines import delayed
from metrics.scoring.row_accumulator import (
    ClipScore,
    FaceEmbeddings,
    Judges,
    RowAccumulator,
    sound_embeddings,
)
from stylegan2.images import resize, to_tensor, to_uint8

Crop = Literal["face", "mouth", "full"]
CONTROLS = ("ground_truth", "static", "shift_5")
SHOWN_FRAMES = 4  # best and worst frames kept per clip, for the report page
RULES = {
    "match": "by relative name without its suffix",
    "rate": "both videos are read at 25 fps, each frame being the one nearest in time",
    "length": "that of the reference: a longer prediction is cut, the last frame of a shorter one is repeated",
    "size": "a prediction of the same aspect ratio (2 %) is cropped in proportion; another one counts as missing",
    "failure": "frames that are missing in the prediction or cannot be read count as black; a frame without a "
    "detected face takes the landmarks of the truth's identity frame, closes no lips and has sface and csim 0",
    "truth": "frames of the truth without a detected face count in image measures only, in all rows alike; "
    "frames before its first face are left out, in all rows alike",
    "sound": "the measures of sync and silence use the truth's sound, in all rows alike; without one their columns stay empty",
    "psnr": "a mean over the frames that differ from the truth; the share of identical ones is in identical_frames, "
    "and n_psnr counts the clips that have such frames",
    "identity frame": "the first frame of the truth with a face",
    "crop": "face: FFHQ crop of the truth's smoothed landmarks, 256 px; mouth: its 96 px around the mouth; full: the "
    "whole frame, shorter side 256 px. Landmarks are px of the face crop in all three",
}


@dataclass(frozen=True)
class PairOptions:
    # Part of the frame that the image measures compare (see RULES)
    crop: Crop = "face"
    # Perceptual and identity figures use every k-th frame
    every: int = 1
    # Frames per call of the networks
    batch: int = 16
    # Whether to score CONTROLS beside the method
    controls: bool = True
    # The predictions are driven by other speech than the references' (metrics/scoring/score_unpaired.py)
    unpaired: bool = False
    # Whether to score the prediction once more after encoding it (metrics/scoring/reencoding.py)
    reencode: bool = False


@dataclass(frozen=True, eq=False)
class ScoredFrame:
    """A frame for the report page: index among the scored frames, mouth error in px, crops uint8 (256, 256, 3)."""

    index: int
    error: float
    true: np.ndarray
    predicted: np.ndarray


@dataclass
class PairResult:
    """scores: one per row. features: row -> features for FID and FVD. left_out: frames before the truth's first face. black:
    frames without a usable predicted image. unknown: frames of the truth without a detected face. other_shape: whether
    the aspect ratios differ. best, worst: frames of lowest and highest mouth error."""

    scores: list[ClipScore]
    features: dict[str, Features]
    left_out: int
    black: int
    unknown: int
    other_shape: bool
    best: list[ScoredFrame]
    worst: list[ScoredFrame]


def score_pair(
    method: str,
    clip: str,
    speaker: str,
    true_frames: Iterable[np.ndarray],
    predicted_frames: Iterable[np.ndarray | None],
    judges: Judges,
    options: PairOptions | None = None,
    sound: np.ndarray | None = None,
) -> PairResult:
    """Scores a clip of T frames uint8 (H, W, 3). predicted_frames: at least T, None where there is no image.

    sound (S,): of the truth, 16 kHz from its first frame on, for the measures of sync and silence. Raises
    ValueError if no face is found in the truth.
    """
    scorer = _PairScorer(method, clip, judges, options or PairOptions())
    for item in aligned_pairs(true_frames, predicted_frames, judges.detector):
        scorer.add(item)
    return scorer.result(speaker, sound)


@dataclass(frozen=True, eq=False)
class IdentityFrame:
    """The true identity frame: its image, face crop, landmarks, quad and identity embeddings."""

    image: np.ndarray
    crop: np.ndarray
    landmarks: np.ndarray
    quad: np.ndarray
    faces: FaceEmbeddings


class _PairScorer:
    def __init__(self, method: str, clip: str, judges: Judges, options: PairOptions) -> None:
        self.clip, self.judges, self.options = clip, judges, options
        names = (method, "ground_truth", "static")
        self.method, self.truth, self.static = (RowAccumulator(name, judges) for name in names)
        self.rows = [self.method, *([self.truth, self.static] if options.controls else [])]
        self.known: list[bool] = []  # per scored frame: whether a face was found in the truth
        self.left_out = self.black = 0
        self.other_shape = False
        self.best: list[ScoredFrame] = []
        self.worst: list[ScoredFrame] = []
        self._identity: IdentityFrame | None = None
        self._previous: tuple[np.ndarray, Face | None] | None = None  # predicted face crop and its face
        self._batch: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []  # true image, row -> image

    def add(self, item: AlignedPair) -> None:
        # The truth: crop, face, image; its first frame with a face is the identity frame
        if item.quad is None or (self._identity is None and not item.detected):
            self.left_out += 1
            return
        true_crop = crop(item.true, item.quad)
        true_face = face_in_crop(self.judges.detector, true_crop)
        true_image = self._image(item.true, true_crop)
        if self._identity is None:
            assert item.landmarks is not None  # item.detected
            points = true_face.landmarks if true_face else transform_points(item.landmarks, item.quad)
            faces = FaceEmbeddings.of(true_crop, points, self.judges)
            self._identity = IdentityFrame(true_image, true_crop, points, item.quad, faces)
        identity = self._identity
        self.known.append(true_face is not None)

        # The prediction: crop, face, image; detection runs only once for repeated crops and copies of the truth
        predicted_crop, image = self._predicted(item, true_image)
        if self._previous is not None and np.array_equal(self._previous[0], predicted_crop):
            face = self._previous[1]
        elif np.array_equal(predicted_crop, true_crop):
            face = true_face
        else:
            face = face_in_crop(self.judges.detector, predicted_crop)
        self._previous = predicted_crop, face

        # Landmarks of every row; without a face the head stays where it is in the identity frame
        for row, row_face, row_crop in (
            (self.method, face, predicted_crop),
            (self.truth, true_face, true_crop),
        ):
            row.add_face(None if row_face is None else row_face.landmarks, identity.landmarks, row_crop)
            row.quads.append(identity.quad if row_face is None else item.quad)
        self.static.add_face(identity.landmarks, identity.landmarks, identity.crop)
        self.static.quads.append(identity.quad)
        if true_face is not None:
            error = float(mouth_distance(self.method.landmarks[-1], true_face.landmarks))
            frame = ScoredFrame(len(self.known) - 1, error, true_crop, predicted_crop)
            self.best = sorted([*self.best, frame], key=lambda f: f.error)[:SHOWN_FRAMES]
            self.worst = sorted([*self.worst, frame], key=lambda f: -f.error)[:SHOWN_FRAMES]
        if (len(self.known) - 1) % self.options.every == 0:
            self.method.add_identity(self.method.embeddings(predicted_crop), identity.faces)
            self.truth.add_identity(self.truth.embeddings(true_crop), identity.faces)

        # Images are collected until a batch is full
        images = {self.method.name: image, "ground_truth": true_image, "static": identity.image}
        self._batch.append((true_image, images))
        if len(self._batch) == self.options.batch:
            self._flush()

    def _image(self, frame: np.ndarray, face_crop: np.ndarray) -> np.ndarray:
        """The part of a frame that the image measures compare."""
        if self.options.crop == "mouth":
            return np.ascontiguousarray(face_crop[MOUTH_PLACE])
        return face_crop if self.options.crop == "face" else whole_frame(frame)

    def _predicted(self, item: AlignedPair, true_image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The prediction's face crop and image; black if it has no frame, or one of another aspect ratio."""
        assert item.quad is not None
        frame = item.predicted
        if frame is not None and not same_shape(item.true, frame):
            self.other_shape, frame = True, None
        if frame is None:
            self.black += 1
            return np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8), np.zeros_like(true_image)
        face_crop = crop(frame, scaled_quad(item.quad, item.true.shape, frame.shape))
        image = self._image(frame, face_crop)
        if image.shape != true_image.shape:  # full frames whose sizes differ by a pixel after scaling
            image = whole_frame(frame, true_image.shape[:2])
        return face_crop, image

    @torch.inference_mode()
    def _flush(self) -> None:
        """Image figures of the batch."""
        if not self._batch:
            return
        first = len(self.known) - len(self._batch)
        true = np.stack([image for image, _ in self._batch])
        sampled = [i for i in range(len(true)) if (first + i) % self.options.every == 0]
        for row in self.rows:
            frames = np.stack([images[row.name] for _, images in self._batch])
            row.add_images(frames, true)
            if sampled and row is not self.truth:
                for column, values in self._distances(frames[sampled], true[sampled]).items():
                    row.add_values(column, *values)
            row.add_features(frames, self.clip, first)
        self._batch = []

    def _distances(self, frames: np.ndarray, true: np.ndarray) -> Mapping[str, list[float]]:
        """Column -> one perceptual distance per frame."""
        if not self.judges.distances:
            return {}
        a, b = (to_tensor(x, self.judges.device) for x in (frames, true))
        if self.options.crop != "full":  # full frames keep their aspect ratio
            a, b = (resize(x, self.judges.perceptual_size) for x in (a, b))
        return {name: net(a, b).flatten().tolist() for name, net in self.judges.distances.items()}

    def result(self, speaker: str, sound: np.ndarray | None) -> PairResult:
        self._flush()
        if self._identity is None:
            raise ValueError("no face is found in the reference")
        known, total = np.array(self.known), len(self.known)
        true, true_quads = np.stack(self.truth.landmarks), np.stack(self.truth.quads)
        begin = self.left_out * SAMPLES_PER_FRAME
        samples = None if sound is None else sound[begin:]
        voice = sound_embeddings(self.judges, samples, total)
        silent = None if samples is None else silent_frames(samples, total)
        truth = ("all", self.clip, speaker, known, true, voice, true_quads, silent, self._identity.crop)
        scores = [row.score(*truth) for row in self.rows]
        if self.options.controls:
            scores.append(self._shifted().score(*truth))
        features = {row.name: row.features for row in self.rows} if self.judges.keep_features else {}
        frames = (self.left_out, self.black, self.known.count(False))
        return PairResult(scores, features, *frames, self.other_shape, self.best, self.worst)

    def _shifted(self) -> RowAccumulator:
        """shift_5: the method's landmarks and sync embeddings, delayed; the first is repeated."""
        row = RowAccumulator("shift_5", self.judges)
        order = delayed(np.arange(len(self.known)))
        for name in ("landmarks", "detected", "quads"):
            setattr(row, name, [getattr(self.method, name)[i] for i in order])
        row.video = None if self.method.video is None else delayed(self.method.video)
        return row


def whole_frame(frame: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The frame uint8 (H, W, 3) resized so that its shorter side is 256 px, or to `shape` (height, width)."""
    height, width = frame.shape[:2]
    scale = CROP_SIZE / min(height, width)
    target = tuple(shape or (round(height * scale), round(width * scale)))
    if (height, width) == target:
        return np.ascontiguousarray(frame)
    x = to_tensor(frame)
    if height >= target[0] and width >= target[1]:
        return to_uint8(torch.nn.functional.interpolate(x, size=target, mode="area"))[0]
    return to_uint8(torch.nn.functional.interpolate(x, size=target, mode="bilinear", align_corners=False))[0]
