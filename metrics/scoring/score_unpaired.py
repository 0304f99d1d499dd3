"""Scores a video of a person that is driven by other speech than its reference's (cross-audio).

No frame of the prediction has a true frame, so only figures that need none are computed: UNPAIRED. Each video is cut along
its own face, and measured with its own sound. The reference gives the identity frame and the distributions of motion.
Shapes: T frames, landmarks (T, 68, 2) px of the 256 px face crop.
"""

from collections.abc import Iterable
from itertools import repeat

import numpy as np

from audio.silence import silent_frames
from audio.timing import SAMPLES_PER_FRAME
from encoders.footage.align import CROP_SIZE, crop, transform_points
from encoders.footage.aligned_pairs import aligned_pairs
from encoders.footage.faces import face_in_crop
from encoders.geometry import aperture
from metrics.measures.dynamics import DYNAMICS, Motion, dynamics_figures, motion_of
from metrics.measures.head_motion import blink_rate, head_pose, head_spread
from metrics.measures.lip_silence import SILENCE
from metrics.measures.sharpness import SHARPNESS
from metrics.measures.sync_distance import SYNC_COLUMNS
from metrics.scoring.row_accumulator import (
    MEANS,
    ClipScore,
    FaceEmbeddings,
    Judges,
    RowAccumulator,
    sound_embeddings,
)
from metrics.scoring.score_videos import IdentityFrame, PairOptions, PairResult

UNPAIRED = (
    *("identity", "sface", "csim_dlib", "csim_arcface"),
    *("detection_rate", "flicker", "blink_rate", "head_motion"),
    *(*SYNC_COLUMNS, *SILENCE, *DYNAMICS, *SHARPNESS),
)
LEFT_OUT = tuple(name for name in MEANS if name not in UNPAIRED)
RULES = {
    "match": "by relative name without its suffix; the reference shows the same person, and says something else",
    "rate": "both videos are read at 25 fps, each frame being the one nearest in time",
    "length": "each video is measured in its own length",
    "sound": "each video is measured with its own sound; without one the columns of sync and silence stay empty",
    "failure": "a missing or unreadable prediction counts as black frames, as many as the reference has; frames before "
    "its first face count as black; frames without a face lower detection_rate, and have sface and csim 0",
    "identity frame": "the first frame of the reference with a face",
    "crop": "FFHQ crop of the video's own smoothed landmarks, 256 px",
    "left out": "figures that compare frames: " + ", ".join((*LEFT_OUT, "lip_gain")),
}


def score_unpaired(
    method: str,
    clip: str,
    speaker: str,
    true_frames: Iterable[np.ndarray],
    predicted_frames: Iterable[np.ndarray],
    judges: Judges,
    options: PairOptions | None = None,
    true_sound: np.ndarray | None = None,
    sound: np.ndarray | None = None,
) -> PairResult:
    """Rows of one pair: the method, and ground_truth (the reference by itself).

    true_frames, predicted_frames: uint8 (H, W, 3), of any two lengths; without any predicted frame the prediction counts as
    black. true_sound, sound (S,): of the reference and of the prediction, 16 kHz. Raises ValueError if no face is found
    in the reference.
    """
    options = options or PairOptions()
    truth = _Video("ground_truth", clip, judges, options)
    truth.add_all(true_frames)
    if truth.identity is None:
        raise ValueError("no face is found in the reference")
    ours = _Video(method, clip, judges, options, truth.identity)
    ours.add_all(predicted_frames)
    black = 0 if ours.row.landmarks else len(truth.row.landmarks)
    for _ in range(black):
        ours.add(None, None)
    ours.flush()
    scored = [(ours, sound), *([(truth, true_sound)] if options.controls else [])]
    scores = [video.score(speaker, own, truth) for video, own in scored]
    features = {video.row.name: video.row.features for video, _ in scored} if judges.keep_features else {}
    unknown = int((~truth.found).sum())
    return PairResult(scores, features, truth.left_out, black, unknown, False, [], [])


class _Video:
    """One video measured by itself. identity: of the reference; None for the reference itself, whose first frame with a
    face it becomes."""

    def __init__(
        self,
        name: str,
        clip: str,
        judges: Judges,
        options: PairOptions,
        identity: IdentityFrame | None = None,
    ) -> None:
        self.clip, self.judges, self.options, self.identity = clip, judges, options, identity
        self.row = RowAccumulator(name, judges)
        self.left_out = 0  # frames of the reference before its first face
        self._batch: list[np.ndarray] = []  # crops for the networks of FID and FVD

    @property
    def found(self) -> np.ndarray:
        """Whether a face was found, bool (T,)."""
        return np.array(self.row.detected, bool)

    def add_all(self, frames: Iterable[np.ndarray]) -> None:
        for item in aligned_pairs(frames, repeat(None), self.judges.detector):
            if self.identity is None:
                if item.quad is None or item.landmarks is None:
                    self.left_out += 1
                    continue
                face_crop = crop(item.true, item.quad)
                face = face_in_crop(self.judges.detector, face_crop)
                points = face.landmarks if face else transform_points(item.landmarks, item.quad)
                faces = FaceEmbeddings.of(face_crop, points, self.judges)
                self.identity = IdentityFrame(face_crop, face_crop, points, item.quad, faces)
            self.add(item.true, item.quad)
        self.flush()

    def add(self, frame: np.ndarray | None, quad: np.ndarray | None) -> None:
        """Adds one frame; it counts as black without a picture or a place of the face."""
        row, identity = self.row, self.identity
        assert identity is not None
        face_crop, face = np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8), None
        if frame is not None and quad is not None:
            face_crop = crop(frame, quad)
            face = face_in_crop(self.judges.detector, face_crop)
        row.add_face(None if face is None else face.landmarks, identity.landmarks, face_crop)
        row.quads.append(identity.quad if face is None or quad is None else quad)
        row.flicker.update([face_crop])
        if (len(row.landmarks) - 1) % self.options.every == 0:
            row.add_identity(row.embeddings(face_crop), identity.faces)
        if self.judges.keep_features:
            self._batch.append(face_crop)
            if len(self._batch) == self.options.batch:
                self.flush()

    def flush(self) -> None:
        """Features of the waiting crops."""
        if self._batch:
            self.row.add_features(
                np.stack(self._batch), self.clip, len(self.row.landmarks) - len(self._batch)
            )
            self._batch = []

    def motion(self) -> dict[str, Motion]:
        return motion_of(np.stack(self.row.landmarks), self.found, np.stack(self.row.quads))

    def score(self, speaker: str, sound: np.ndarray | None, truth: "_Video") -> ClipScore:
        """sound (S,): this video's own, from its first frame on."""
        row, total = self.row, len(self.row.landmarks)
        assert truth.identity is not None
        samples = None if sound is None else sound[self.left_out * SAMPLES_PER_FRAME :]
        silent = None if samples is None else silent_frames(samples, total)
        voice = sound_embeddings(self.judges, samples, total)
        figures = row.own_figures(voice, silent, truth.identity.crop)
        figures |= dynamics_figures(self.motion(), truth.motion())
        points = np.stack(row.landmarks)[self.found]
        if len(points):
            figures["blink_rate"] = blink_rate(points)
            figures["head_motion"] = head_spread(head_pose(points, np.stack(row.quads)[self.found]))
        curves = aperture(points), aperture(np.stack(truth.row.landmarks)[truth.found])
        error = np.full(total, np.nan)
        return ClipScore(row.name, "all", self.clip, total, figures, *curves, speaker=speaker, error=error)
