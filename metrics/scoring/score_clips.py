"""Scores rows clip by clip, while their frames are generated; frames are not stored.

Shapes: T frames of a clip; landmarks (T, 68, 2) in px of the 256 px crop. The true landmarks come with the clip, the
predicted ones are detected on the predicted crops. A clip's figures are means over its frames, a row's means over its clips.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audio.silence import silent_frames
from audio.timing import SAMPLES_PER_FRAME
from encoders.features.perceptual import Perceptual
from encoders.footage.align import CROP_SIZE
from encoders.footage.faces import face_in_crop
from encoders.records import FrameClip
from metrics.measures.fid import frechet_of
from metrics.measures.intervals import bootstrap_interval, mean_over, speaker_interval
from metrics.measures.kid import Features, kid_of
from metrics.measures.lip_motion import lip_gain, lip_gain_denominator
from metrics.scoring.row_accumulator import (
    MEANS,
    ClipScore,
    FaceEmbeddings,
    Judges,
    RowAccumulator,
    sound_embeddings,
)
from stylegan2.images import resize, to_tensor, to_uint8

CACHED = 32  # frames of a clip whose perceptual features are cached: 8 MB each at 128 px
DECODED = 300  # frames of a clip that stay decoded for the next row: 0.2 MB each


def stride_for(total_frames: int, wanted: int = 200) -> int:
    """k such that every k-th of total_frames is about `wanted` frames; at least 1."""
    return max(1, round(total_frames / wanted))


@dataclass(frozen=True)
class Truth:
    """The reference for all rows of one clip: landmarks (68, 2), the judges' embeddings and the crop of the true identity
    frame, and what was computed for one row and serves the next ones: true frames at crop size, perceptual features of the
    true frames sampled so far, and the landmarks and embeddings that the judges found on predicted frames, by the frame's
    bytes. Rows that show the same frames (shift_5 those of stage1_only, static one frame) are judged once.
    """

    landmarks: np.ndarray
    faces: FaceEmbeddings
    crop: np.ndarray
    features: dict[int, list[Tensor]] = field(default_factory=dict)
    frames: dict[int, np.ndarray] = field(default_factory=dict)
    found: dict[bytes, np.ndarray | None] = field(default_factory=dict)  # None: no face
    embedded: dict[bytes, FaceEmbeddings] = field(default_factory=dict)
    last_features: dict[bytes, list[Tensor]] = field(
        default_factory=dict
    )  # of the last sampled predicted frame

    @classmethod
    def of(cls, clip: FrameClip, ref_index: int, judges: Judges) -> "Truth":
        frame = at_crop_size(np.asarray(clip.frames[ref_index]))
        face = face_in_crop(judges.detector, frame)
        landmarks = face.landmarks if face is not None else np.asarray(clip.landmarks[ref_index])
        return cls(landmarks, FaceEmbeddings.of(frame, landmarks, judges), frame)

    def frame(self, clip: FrameClip, t: int) -> np.ndarray:
        """The true frame t, uint8 (256, 256, 3)."""
        if t in self.frames:
            return self.frames[t]
        frame = at_crop_size(np.asarray(clip.frames[t]))
        if len(self.frames) < DECODED:
            self.frames[t] = frame
        return frame

    def landmarks_of(self, frame: np.ndarray, key: bytes, judges: Judges) -> np.ndarray | None:
        """The landmarks of a predicted frame, None without a face. key: digest of its bytes."""
        if key not in self.found:
            face = face_in_crop(judges.detector, frame)
            self.found[key] = None if face is None else face.landmarks
        return self.found[key]

    def embeddings_of(self, frame: np.ndarray, key: bytes, judges: Judges) -> FaceEmbeddings:
        """The identity judges' embeddings of a predicted frame whose landmarks were searched."""
        if key not in self.embedded:
            found = self.found[key]
            points = self.landmarks if found is None else found
            self.embedded[key] = FaceEmbeddings.of(frame, points, judges)
        return self.embedded[key]


def score_clip(
    row: str,
    clip: FrameClip,
    frames: Iterable[np.ndarray],
    judges: Judges,
    truth: Truth,
    every: int = 1,
    skip: Collection[int] = (),
    split: str | None = None,
    features: Collection[Features] = (),
) -> ClipScore:
    """Compares predicted frames, one uint8 (H, W, 3) for each frame of the clip, with the truth.

    truth: of this clip and these judges. every: perceptual and identity figures use every k-th scored frame. skip: frames
    that are not scored, such as those used for tuning. features: objects to which the Inception and I3D features of the
    scored frames are added.

    A frame without a detected face gets the landmarks of the static row (detected on the identity frame) and closes no
    lips. Frames without true landmarks contribute to the image figures only, in all rows alike.
    """
    accumulator = RowAccumulator(row, judges)
    scored = [t for t in range(len(clip.frames)) if t not in skip]
    if not scored:
        raise ValueError(f"{clip.name}: every frame was left out, so there is nothing to score")
    wanted, sampled = set(scored), set(scored[min(every // 2, len(scored) - 1) :: every])
    count = 0
    for count, raw in enumerate(frames, 1):
        t = count - 1
        if t not in wanted:
            continue
        frame, true = at_crop_size(raw), truth.frame(clip, t)
        key = blake2b(np.ascontiguousarray(frame).data, digest_size=16).digest()
        accumulator.add_face(truth.landmarks_of(frame, key, judges), truth.landmarks, frame)
        accumulator.add_images([frame], [true])
        if t in sampled:
            _add_sampled(t, frame, key, true, truth, accumulator)
        accumulator.add_features(frame[None], clip.name, t, features)
    if count != len(clip.frames):
        raise ValueError(f"row {row} has {count} frames for {clip.name}, the clip has {len(clip.frames)}")
    known = np.asarray(clip.detected, dtype=bool)[scored]
    sound = silent = None
    if scored[-1] - scored[0] + 1 == len(scored):  # sync windows and speeds need consecutive frames
        samples = clip.waveform[scored[0] * SAMPLES_PER_FRAME :]
        sound = sound_embeddings(judges, samples, len(scored))
        silent = silent_frames(samples, len(scored))
    true_landmarks = np.asarray(clip.landmarks)[scored]
    place = split or clip.split, clip.name, clip.speaker
    return accumulator.score(*place, known, true_landmarks, sound, silent=silent, identity_crop=truth.crop)


@torch.inference_mode()
def _add_sampled(
    t: int, frame: np.ndarray, key: bytes, true: np.ndarray, truth: Truth, accumulator: RowAccumulator
) -> None:
    """Adds the perceptual and identity figures of frame t."""
    judges, distance = accumulator.judges, accumulator.judges.perceptual
    if distance is not None and accumulator.name in judges.perceptual_rows:
        true_features = truth.features.get(t)
        if true_features is None:
            true_features = _features(true, distance, judges)
            if len(truth.features) < CACHED:
                truth.features[t] = true_features
        if key not in truth.last_features:
            truth.last_features.clear()
            truth.last_features[key] = _features(frame, distance, judges)
        value = float(distance.between(truth.last_features[key], true_features))
        accumulator.add_values("perceptual", value)
    accumulator.add_identity(truth.embeddings_of(frame, key, judges), truth.faces)


def _features(frame: np.ndarray, distance: Perceptual, judges: Judges) -> list[Tensor]:
    return distance.features(resize(to_tensor(frame, judges.device), judges.perceptual_size))


def at_crop_size(frame: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> (256, 256, 3), area-averaged, so that all figures are in px of one size."""
    if frame.shape[:2] == (CROP_SIZE, CROP_SIZE):
        return np.ascontiguousarray(frame)
    return to_uint8(resize(to_tensor(frame), CROP_SIZE))[0]


class Evaluation:
    """Collects the clip scores of all rows and computes the table.

    FID, KID and FVD compare a row with the ground_truth row of the same split, so the ground_truth row must be added too.
    """

    def __init__(self, judges: Judges) -> None:
        self.judges = judges
        self._truth: tuple[FrameClip, int, Truth] | None = None  # truth of the clip that was scored last
        self.scores: list[ClipScore] = []
        self.features: dict[tuple[str, str], Features] = {}  # of (row, split)

    def add(
        self,
        row: str,
        clip: FrameClip,
        frames: Iterable[np.ndarray],
        ref_index: int,
        every: int = 1,
        skip: Collection[int] = (),
        split: str | None = None,
        also: str | None = None,
    ) -> ClipScore:
        """Scores one clip of one row (see score_clip). Add all rows of a clip before the next clip.

        ref_index: the true identity frame. split: where the score is listed, by default the clip's own split. also:
        another split whose FID, KID and FVD the frames contribute to.
        """
        split = split or clip.split
        features = []
        if self.judges.keep_features:
            features = [self.features.setdefault((row, name), Features()) for name in {split, also or split}]
        if self._truth is None or self._truth[0] is not clip or self._truth[1] != ref_index:
            self._truth = clip, ref_index, Truth.of(clip, ref_index, self.judges)
        score = score_clip(row, clip, frames, self.judges, self._truth[2], every, skip, split, features)
        self.scores.append(score)
        return score

    def rows(self) -> list[dict[str, Any]]:
        """One record per row and split, in the order in which they were first scored."""
        return with_frechet(summarise(self.scores), self.features, self.judges)


def with_frechet(
    rows: list[dict[str, Any]], features: Mapping[tuple[str, str], Features], judges: Judges
) -> list[dict[str, Any]]:
    """Fills fid, kid, fid_reason, fvd and fvd_reason of each row. features: of (row, split)."""
    for record in rows:
        predicted, true = (features.get((row, record["split"])) for row in (record["name"], "ground_truth"))
        frames = (f.gaussian if f and judges.inception else None for f in (predicted, true))
        windows = (f.windows if f and judges.i3d else None for f in (predicted, true))
        record["fid"], record["fid_reason"] = frechet_of(*frames, missing=judges.no_inception)
        record["fvd"], record["fvd_reason"] = frechet_of(*windows, missing=judges.no_i3d, unit="window")
        record["kid"] = kid_of(predicted, true)
    return rows


def summarise(scores: Iterable[ClipScore]) -> list[dict[str, Any]]:
    """One record per row and split: means over clips, equally weighted, with 95 % bootstrap intervals over clips
    (`interval`) and over speakers (`interval_speakers`).

    lip_gain compares with static and inversion on the same clips; lip_gain_denominator is what it divides by.
    A clip identical to the truth has no finite PSNR: the mean is over the `n_psnr` clips that have one.
    """
    table: dict[tuple[str, str], dict[str, ClipScore]] = {}
    for score in scores:
        clips = table.setdefault((score.row, score.split), {})
        if score.clip in clips:
            raise ValueError(f"row {score.row}, split {score.split}: clip {score.clip} was scored twice")
        clips[score.clip] = score
    return [
        _row_record(row, split, clips, [table.get((name, split), {}) for name in ("static", "inversion")])
        for (row, split), clips in table.items()
    ]


def _row_record(
    row: str, split: str, clips: Mapping[str, ClipScore], anchors: Iterable[Mapping[str, ClipScore]]
) -> dict[str, Any]:
    """clips: of the row; anchors: clips of static and of inversion on the same split."""
    record: dict[str, Any] = {"name": row, "split": split}
    interval: dict[str, tuple[float, float]] = {}
    interval_speakers: dict[str, tuple[float, float]] = {}
    speakers = [score.speaker or score.clip for score in clips.values()]
    for key in MEANS:
        values = [score.figures[key] for score in clips.values()]
        record[key] = mean_over(values)
        if over_clips := bootstrap_interval(values):
            interval[key] = over_clips
        if over_speakers := speaker_interval(values, speakers):
            interval_speakers[key] = over_speakers
    static, inversion = (_mean_mouth(anchor, clips) for anchor in anchors)
    record["lip_gain"] = lip_gain(record["lmd_mouth"], static, inversion)
    record["lip_gain_denominator"] = lip_gain_denominator(static, inversion)
    record |= {"fid": None, "kid": None, "fid_reason": "no Inception network was given"}
    record |= {"fvd": None, "fvd_reason": "no I3D network was given"}
    record |= {"n_frames": sum(score.n_frames for score in clips.values()), "n_clips": len(clips)}
    record["n_psnr"] = sum(score.figures["psnr"] is not None for score in clips.values())
    record["n_speakers"] = len(set(speakers))
    return record | {"interval": interval, "interval_speakers": interval_speakers}


def _mean_mouth(anchor: Mapping[str, ClipScore], clips: Collection[str]) -> float | None:
    """Mean lmd_mouth of an anchor row over these clips; None if it lacks one of them."""
    if not all(clip in anchor for clip in clips):
        return None
    return mean_over([anchor[clip].figures["lmd_mouth"] for clip in clips])
