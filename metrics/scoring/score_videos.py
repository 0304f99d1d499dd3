"""Score one video against its truth as both stream by: nothing but crops in flight and landmarks is kept.

Rows of one pair: the method itself, and controls that cost nothing more to look at: ground_truth (the truth against
itself: the level of blinks, flicker, identity), static (the truth's identity frame, repeated) and shift_5 (the
method's own figures over time, five frames late; its pictures are the method's, so it has no image figures).
Shapes: T frames, landmarks (T, 68, 2) px of the 256 px face crop.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from audio.timing import SAMPLES_PER_FRAME
from encoders.features.mouth_crop import MOUTH_PLACE
from encoders.footage.align import CROP_SIZE, crop, transform_points
from encoders.footage.aligned_pairs import AlignedPair, aligned_pairs, same_shape, scaled_quad
from encoders.footage.faces import Face, face_in_crop
from encoders.lmd import mouth_distance
from metrics.measures.kid import Features
from metrics.scoring.clip_score import ClipScore, Faces, Gathered, Judges, heard
from metrics.scoring.control_baselines import delayed
from stylegan2.images import resize, to_tensor, to_uint8

Crop = Literal["face", "mouth", "full"]
CONTROLS = ("ground_truth", "static", "shift_5")
RULES = {
    "match": "by relative name without its suffix",
    "rate": "both videos are read at 25 fps, the picture nearest in time",
    "length": "the reference decides: a longer prediction is cut, a shorter one holds its last picture",
    "size": "a prediction of the same aspect ratio (2 %) is looked at in proportion; another one counts as missing",
    "failure": "a missing, unreadable or cut-off prediction is black where it has no picture; a frame without a "
    "detected face takes the landmarks of the truth's identity frame, closes no lips and has csim 0",
    "truth": "frames of the truth without a detected face count for the images only, in all rows alike; "
    "frames before its first face are left out, in all rows alike",
    "sound": "the sync measure hears the truth's sound, in all rows alike; without one its columns stay empty",
    "psnr": "a mean over the frames that differ from the truth; the share of identical ones is in identical_frames, "
    "and n_psnr counts the clips that have such frames",
    "identity frame": "the first frame of the truth with a face",
    "crop": "face: FFHQ crop of the truth's smoothed landmarks, 256 px; mouth: its 96 px around the mouth; full: the "
    "whole frame, shorter side 256 px. Landmarks are px of the face crop in all three",
}


@dataclass(frozen=True)
class PairOptions:
    """crop: what the image measures see. every: perceptual and identity look at every k-th frame. batch: frames that
    the networks see at once. controls: rows beside the method's."""

    crop: Crop = "face"
    every: int = 1
    batch: int = 16
    controls: bool = True


@dataclass
class PairResult:
    """scores: one of each row. features: row -> Inception features. Frames: left out before the truth's first face,
    black because the prediction had no usable picture, truth without a detected face. best, worst: by mouth error."""

    scores: list[ClipScore]
    features: dict[str, Features]
    left_out: int
    black: int
    unknown: int
    other_shape: bool
    best: list["Extreme"]
    worst: list["Extreme"]


@dataclass(frozen=True, eq=False)
class Extreme:
    """A frame worth looking at: its number among the scored ones, mouth error in px, crops uint8 (256, 256, 3)."""

    index: int
    error: float
    true: np.ndarray
    predicted: np.ndarray


def score_pair(
    method: str,
    clip: str,
    speaker: str,
    true_frames: Iterable[np.ndarray],
    predicted_frames: Iterable[np.ndarray | None],
    judges: Judges,
    options: PairOptions | None = None,
    split: str = "all",
    sound: np.ndarray | None = None,
) -> PairResult:
    """Scores a clip of T frames uint8 (H, W, 3). predicted_frames: at least T, None where there is no picture.
    sound (S,): of the truth, 16 kHz from its first frame on, for the sync measure.

    Raises ValueError if the truth shows no face at all.
    """
    scorer = _PairScorer(method, clip, judges, options or PairOptions())
    for item in aligned_pairs(true_frames, predicted_frames, judges.detector):
        scorer.add(item)
    return scorer.result(speaker, split, sound)


class _PairScorer:
    def __init__(self, method: str, clip: str, judges: Judges, options: PairOptions) -> None:
        self.clip, self.judges, self.options = clip, judges, options
        names = (method, "ground_truth", "static")
        self.method, self.truth, self.frozen = (Gathered(name, judges) for name in names)
        self.rows = [self.method, *([self.truth, self.frozen] if options.controls else [])]
        self.known: list[bool] = []
        self.left_out = self.black = 0
        self.other_shape = False
        self._identity: _IdentityFrame | None = None
        self._before: tuple[np.ndarray, Face | None] | None = None
        self.best: list[Extreme] = []
        self.worst: list[Extreme] = []
        self._waiting: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []

    def add(self, item: AlignedPair) -> None:
        if item.quad is None or (self._identity is None and not item.detected):
            self.left_out += 1
            return
        true_face_crop = crop(item.true, item.quad)
        true_face = face_in_crop(self.judges.detector, true_face_crop)
        true_picture = self._picture(item.true, true_face_crop)
        if self._identity is None:
            assert item.landmarks is not None  # detected
            points = true_face.landmarks if true_face else transform_points(item.landmarks, item.quad)
            faces = Faces.of(true_face_crop, points, self.judges)
            self._identity = _IdentityFrame(true_picture, true_face_crop, points, item.quad, faces)
        identity = self._identity
        self.known.append(true_face is not None)

        face_crop, picture = self._predicted(item, true_picture)
        if self._before is not None and np.array_equal(self._before[0], face_crop):
            face = self._before[1]  # a frozen face is looked for once
        elif np.array_equal(face_crop, true_face_crop):
            face = true_face
        else:
            face = face_in_crop(self.judges.detector, face_crop)
        self._before = face_crop, face

        def seen(row: Gathered, points: np.ndarray | None, crop: np.ndarray, quad: np.ndarray) -> None:
            row.see(points, identity.landmarks, crop)
            # Where no face is found, the head stays where it was in the identity frame.
            row.quads.append(identity.quad if points is None else quad)

        seen(self.method, None if face is None else face.landmarks, face_crop, item.quad)
        seen(self.truth, None if true_face is None else true_face.landmarks, true_face_crop, item.quad)
        seen(self.frozen, identity.landmarks, identity.crop, identity.quad)
        if true_face is not None:
            error = float(mouth_distance(self.method.landmarks[-1], true_face.landmarks))
            self._remember(Extreme(len(self.known) - 1, error, true_face_crop, face_crop))
        if (len(self.known) - 1) % self.options.every == 0:
            self.method.identify(face_crop, identity.faces)
            self.truth.identify(true_face_crop, identity.faces)
        pictures = {self.method.name: picture, "ground_truth": true_picture, "static": identity.picture}
        self._waiting.append((true_picture, pictures))
        if len(self._waiting) == self.options.batch:
            self._flush()

    def _remember(self, frame: Extreme, most: int = 4) -> None:
        self.best = sorted([*self.best, frame], key=lambda f: f.error)[:most]
        self.worst = sorted([*self.worst, frame], key=lambda f: -f.error)[:most]

    def _picture(self, frame: np.ndarray, face_crop: np.ndarray) -> np.ndarray:
        """What the image measures see of a frame."""
        if self.options.crop == "mouth":
            return np.ascontiguousarray(face_crop[MOUTH_PLACE])
        return face_crop if self.options.crop == "face" else whole(frame)

    def _predicted(self, item: AlignedPair, true_picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The prediction's face crop and picture; black where it has none that can be compared."""
        assert item.quad is not None
        frame = item.predicted
        if frame is not None and not same_shape(item.true, frame):
            self.other_shape, frame = True, None
        if frame is None:
            self.black += 1
            return np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8), np.zeros_like(true_picture)
        face_crop = crop(frame, scaled_quad(item.quad, item.true.shape, frame.shape))
        picture = self._picture(frame, face_crop)
        if picture.shape != true_picture.shape:  # whole frames whose ratios differ by a pixel
            picture = whole(frame, true_picture.shape[:2])
        return face_crop, picture

    @torch.inference_mode()
    def _flush(self) -> None:
        """Image figures of the frames that wait, the networks' in one batch."""
        if not self._waiting:
            return
        first = len(self.known) - len(self._waiting)
        true = np.stack([picture for picture, _ in self._waiting])
        sampled = [i for i in range(len(true)) if (first + i) % self.options.every == 0]
        for row in self.rows:
            frames = np.stack([pictures[row.name] for _, pictures in self._waiting])
            row.compare(frames, true)
            if sampled and row is not self.truth:
                for column, value in self._distances(frames[sampled], true[sampled]).items():
                    row.note(column, *value)
            if self.judges.inception is not None:
                x = to_tensor(frames, self.judges.device)
                row.features.update(self.judges.inception(x), self.clip, first)
        self._waiting = []

    def _distances(self, frames: np.ndarray, true: np.ndarray) -> Mapping[str, list[float]]:
        if not self.judges.distances:
            return {}
        size = self.judges.perceptual_size
        a, b = (to_tensor(x, self.judges.device) for x in (frames, true))
        if self.options.crop != "full":  # a whole frame keeps its shape
            a, b = resize(a, size), resize(b, size)
        return {name: net(a, b).flatten().tolist() for name, net in self.judges.distances.items()}

    def result(self, speaker: str, split: str, sound: np.ndarray | None) -> PairResult:
        self._flush()
        if self._identity is None:
            raise ValueError("no face is found in the reference")
        known, total = np.array(self.known), len(self.known)
        true, true_quads = np.stack(self.truth.landmarks), np.stack(self.truth.quads)
        begin = self.left_out * SAMPLES_PER_FRAME
        voice = heard(self.judges, None if sound is None else sound[begin:], total)
        place = (split, self.clip, speaker)
        scores = [row.score(place, known, true, voice, true_quads) for row in self.rows]
        if self.options.controls:
            scores.append(self._late().score(place, known, true, voice, true_quads))
        features = {row.name: row.features for row in self.rows} if self.judges.inception else {}
        unknown = self.known.count(False)
        return PairResult(
            scores, features, self.left_out, self.black, unknown, self.other_shape, self.best, self.worst
        )

    def _late(self) -> Gathered:
        """shift_5: what the method showed, later; for the sync measure its windows, of which the first is repeated."""
        row = Gathered("shift_5", self.judges)
        order = delayed(np.arange(len(self.known)))
        for name in ("landmarks", "detected", "quads"):
            setattr(row, name, [getattr(self.method, name)[i] for i in order])
        row.video = None if self.method.video is None else delayed(self.method.video)
        return row


@dataclass(frozen=True, eq=False)
class _IdentityFrame:
    """What the image measures see of the true identity frame, its face crop, landmarks, quad and identity."""

    picture: np.ndarray
    crop: np.ndarray
    landmarks: np.ndarray
    quad: np.ndarray
    faces: Faces


def whole(frame: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The whole frame uint8 (H, W, 3), averaged so that its shorter side is 256 px, or to `shape` (height, width)."""
    height, width = frame.shape[:2]
    scale = CROP_SIZE / min(height, width)
    target = tuple(shape or (round(height * scale), round(width * scale)))
    if (height, width) == target:
        return np.ascontiguousarray(frame)
    x = to_tensor(frame)
    if height >= target[0] and width >= target[1]:
        return to_uint8(torch.nn.functional.interpolate(x, size=target, mode="area"))[0]
    return to_uint8(torch.nn.functional.interpolate(x, size=target, mode="bilinear", align_corners=False))[0]
