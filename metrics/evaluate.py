"""Score rows clip by clip: predicted frames are consumed as they are made, never kept.

Shapes: T frames of a clip; landmarks (T, 68, 2) in px of the 256 px crop. The truth's landmarks are the clip's own,
the prediction's are what the judge finds on its crops. All figures of a clip are means over its frames, all figures
of a row means over its clips.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from encoders.align import CROP_SIZE
from encoders.clips import FrameClip
from encoders.faces import FaceDetector, face_in_crop
from encoders.geometry import aperture, mouth_distance
from encoders.identity import identity_cosine, identity_distance
from metrics.frechet import Inception, fid_of
from metrics.image import mean_psnr, psnr, ssim
from metrics.kid import Features, kid_of
from metrics.landmarks import lip_gain
from metrics.legacy import LEGACY, legacy_figures, psnr_uint8, ssim_96
from metrics.motion import Flicker
from metrics.rows import PERCEPTUAL_ROWS
from metrics.sequence import SEQUENCE, sequence_figures
from metrics.stats import bootstrap_interval, mean_over, speaker_interval
from stylegan2.images import resize, to_tensor, to_uint8

DISTANCES = ("lpips_alex", "lpips_vgg", "st_lpips_alex", "st_lpips_vgg")
MEANS = (
    *("psnr", "ssim", *SEQUENCE, "perceptual", *DISTANCES),
    *("identity", "csim_dlib", "flicker", "detection_rate", *LEGACY),
)


class Identity(Protocol):
    """encoders.identity.DlibIdentity: image uint8 (H, W, 3), landmarks (68, 2) -> embedding."""

    def embed(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Judges:
    """The networks that look at frames; a missing one leaves its column empty.

    perceptual: a Perceptual (vgg: the judge is not the teacher) on frames averaged to perceptual_size px, for the
    rows in perceptual_rows. distances: column -> Perceptual, for metrics.pairs. inception: metrics.frechet.load_inception's two values.
    legacy: fill the columns of metrics.legacy too.
    """

    detector: FaceDetector
    perceptual: torch.nn.Module | None = None
    identity: Identity | None = None
    inception: Inception | None = None
    no_inception: str | None = "no Inception network was given"
    distances: Mapping[str, torch.nn.Module] = field(default_factory=dict)
    perceptual_size: int = 128
    perceptual_rows: tuple[str, ...] = PERCEPTUAL_ROWS
    device: str = "cpu"
    legacy: bool = False


@dataclass(frozen=True)
class ClipScore:
    """One clip of one row. figures: MEANS -> value or None; apertures (T',) of the T' frames with true landmarks.

    error (T,): mouth distance of each frame, px, nan where the truth has no landmarks.
    """

    row: str
    split: str
    clip: str
    n_frames: int
    figures: dict[str, float | None]
    aperture: np.ndarray
    true_aperture: np.ndarray
    speaker: str = ""
    error: np.ndarray = field(default_factory=lambda: np.zeros(0))


def stride_for(total_frames: int, wanted: int = 200) -> int:
    """k so that every k-th of total_frames is about `wanted` frames; at least 1."""
    return max(1, round(total_frames / wanted))


@dataclass
class _Frames:
    """What is gathered while the frames of one clip pass by."""

    landmarks: list[np.ndarray] = field(default_factory=list)
    detected: list[bool] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    perceptual: list[float] = field(default_factory=list)
    identity: list[float] = field(default_factory=list)
    csim: list[float] = field(default_factory=list)
    flicker: Flicker = field(default_factory=Flicker)
    legacy: list[tuple[float, float]] = field(default_factory=list)


def score_clip(
    row: str,
    clip: FrameClip,
    frames: Iterable[np.ndarray],
    judges: Judges,
    ref_index: int,
    every: int = 1,
    skip: Collection[int] = (),
    split: str | None = None,
    features: Features | None = None,
) -> ClipScore:
    """Compares the predicted frames, one uint8 (H, W, 3) for each frame of the clip, with the truth.

    ref_index: the true identity frame. every: perceptual and identity look at every k-th scored frame.
    skip: frames that are not scored, such as those used for tuning. features: gathers Inception features.

    A frame without a detected face takes the landmarks of the static row (the judge's, on the identity frame) and
    closes no lips. Frames whose truth has no landmarks count for the images only, in all rows alike.
    """
    static = _identity_frame(clip, ref_index, judges)
    seen = _Frames()
    scored = [t for t in range(len(clip.frames)) if t not in skip]
    if not scored:
        raise ValueError(f"{clip.name}: every frame was left out, nothing to score")
    wanted, sampled = set(scored), set(scored[min(every // 2, len(scored) - 1) :: every])
    count = 0
    previous: np.ndarray | None = None
    face = None
    for t, raw in enumerate(frames):
        count += 1
        if t not in wanted:
            continue
        frame, true = _at_crop_size(raw), _at_crop_size(np.asarray(clip.frames[t]))
        if previous is None or not np.array_equal(previous, frame):  # a frozen face is looked for once
            face = face_in_crop(judges.detector, frame)
        previous = frame
        points = face.landmarks if face is not None else static.landmarks
        seen.landmarks.append(points)
        seen.detected.append(face is not None)
        seen.psnr.append(psnr(frame, true))
        seen.ssim.append(ssim(frame, true))
        seen.flicker.update([frame])
        if judges.legacy:
            seen.legacy.append((psnr_uint8(frame, true), ssim_96(frame, true)))
        if t in sampled:
            _sample(row, frame, true, points, static, judges, seen)
        if features is not None and judges.inception is not None:
            features.update(judges.inception(to_tensor(frame, judges.device)), clip.name, t)
    if count != len(clip.frames):
        raise ValueError(f"row {row} has {count} frames for {clip.name}, the clip has {len(clip.frames)}")
    return _score(row, clip, split or clip.split, np.array(scored), seen)


@dataclass(frozen=True)
class _IdentityFrame:
    landmarks: np.ndarray
    embedding: np.ndarray | None


def _identity_frame(clip: FrameClip, ref_index: int, judges: Judges) -> _IdentityFrame:
    frame = _at_crop_size(np.asarray(clip.frames[ref_index]))
    face = face_in_crop(judges.detector, frame)
    landmarks = face.landmarks if face is not None else np.asarray(clip.landmarks[ref_index])
    return _IdentityFrame(landmarks, judges.identity.embed(frame, landmarks) if judges.identity else None)


@torch.inference_mode()
def _sample(
    row: str,
    frame: np.ndarray,
    true: np.ndarray,
    points: np.ndarray,
    static: _IdentityFrame,
    judges: Judges,
    seen: _Frames,
) -> None:
    if judges.perceptual is not None and row in judges.perceptual_rows:
        both = resize(to_tensor(np.stack([frame, true]), judges.device), judges.perceptual_size)
        seen.perceptual.append(float(judges.perceptual(both[:1], both[1:])))
    if judges.identity is not None and static.embedding is not None:
        embedding = judges.identity.embed(frame, points)
        seen.identity.append(identity_distance(embedding, static.embedding))
        # A frame without a detected face resembles nobody.
        seen.csim.append(identity_cosine(embedding, static.embedding) if seen.detected[-1] else 0.0)


def _score(row: str, clip: FrameClip, split: str, scored: np.ndarray, seen: _Frames) -> ClipScore:
    known = np.asarray(clip.detected, dtype=bool)[scored]
    true = np.asarray(clip.landmarks)[scored][known]
    predicted, detected = np.stack(seen.landmarks)[known], np.array(seen.detected)[known]
    figures: dict[str, float | None] = dict.fromkeys(MEANS)
    figures |= {"psnr": mean_psnr(seen.psnr), "ssim": mean_over(seen.ssim), "flicker": seen.flicker.value}
    figures |= {"perceptual": mean_over(seen.perceptual), "identity": mean_over(seen.identity)}
    figures |= {"csim_dlib": mean_over(seen.csim), "detection_rate": float(np.mean(seen.detected))}
    figures |= sequence_figures(predicted, true, detected)
    if seen.legacy:
        figures |= legacy_figures(predicted, true, seen.legacy)
    error = np.full(len(scored), np.nan)
    error[known] = mouth_distance(predicted, true)
    return ClipScore(
        *(row, split, clip.name, len(scored), figures, aperture(predicted), aperture(true)),
        speaker=clip.speaker,
        error=error,
    )


def _at_crop_size(frame: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> (256, 256, 3), area-averaged: all figures are in px of one declared crop."""
    if frame.shape[:2] == (CROP_SIZE, CROP_SIZE):
        return np.ascontiguousarray(frame)
    return to_uint8(resize(to_tensor(frame), CROP_SIZE))[0]


class Evaluation:
    """Gathers clip scores of all rows and turns them into the table.

    FID compares a row's frames with those of the ground_truth row of the same split, so that row comes with it.
    """

    def __init__(self, judges: Judges) -> None:
        self.judges = judges
        self.scores: list[ClipScore] = []
        self.features: dict[tuple[str, str], Features] = {}

    def add(
        self,
        row: str,
        clip: FrameClip,
        frames: Iterable[np.ndarray],
        ref_index: int,
        every: int = 1,
        skip: Collection[int] = (),
        split: str | None = None,
    ) -> ClipScore:
        """Scores one clip of one row (see score_clip) and keeps the figures. split: "tuned" or the clip's own."""
        features = None
        if self.judges.inception is not None:
            features = self.features.setdefault((row, split or clip.split), Features())
        score = score_clip(row, clip, frames, self.judges, ref_index, every, skip, split, features)
        self.scores.append(score)
        return score

    def rows(self) -> list[dict[str, Any]]:
        """One record per row and split, in the order in which they were first scored."""
        return with_frechet(summarise(self.scores), self.features, self.judges.no_inception)


def with_frechet(
    rows: list[dict[str, Any]], features: Mapping[tuple[str, str], Features], missing: str | None
) -> list[dict[str, Any]]:
    """Fills fid, kid and fid_reason of each row. features: of (row, split); missing: why there are none at all."""
    for record in rows:
        made, true = (features.get((row, record["split"])) for row in (record["name"], "ground_truth"))
        gaussians = (made and made.gaussian, true and true.gaussian)
        record["fid"], record["fid_reason"] = fid_of(*gaussians, missing)
        record["kid"] = kid_of(made, true)
    return rows


def summarise(scores: Iterable[ClipScore]) -> list[dict[str, Any]]:
    """Means over clips, equally weighted, of each row and split; `interval` and `interval_speakers` hold 95 %
    bootstrap intervals over clips and over speakers.

    lip_gain takes static and inversion on the clips that the row has.
    """
    table: dict[tuple[str, str], dict[str, ClipScore]] = {}
    for score in scores:
        clips = table.setdefault((score.row, score.split), {})
        if score.clip in clips:
            raise ValueError(f"row {score.row}, split {score.split}: clip {score.clip} was scored twice")
        clips[score.clip] = score
    rows = []
    for (row, split), clips in table.items():
        record: dict[str, Any] = {"name": row, "split": split}
        interval: dict[str, tuple[float, float]] = {}
        over_speakers: dict[str, tuple[float, float]] = {}
        speakers = [score.speaker or score.clip for score in clips.values()]
        for key in MEANS:
            values = [score.figures[key] for score in clips.values()]
            record[key] = mean_over(values)
            if spread := bootstrap_interval(values):
                interval[key] = spread
            if spread := speaker_interval(values, speakers):
                over_speakers[key] = spread
        anchors = [_mean_mouth(table.get((anchor, split), {}), clips) for anchor in ("static", "inversion")]
        record["lip_gain"] = lip_gain(record["lmd_mouth"], *anchors)
        record |= {"fid": None, "kid": None, "fid_reason": "no Inception network was given"}
        record |= {"n_frames": sum(score.n_frames for score in clips.values()), "n_clips": len(clips)}
        record |= {"n_speakers": len(set(speakers)), "interval": interval, "interval_speakers": over_speakers}
        rows.append(record)
    return rows


def _mean_mouth(anchor: Mapping[str, ClipScore], clips: Collection[str]) -> float | None:
    if not all(clip in anchor for clip in clips):
        return None
    return mean_over([anchor[clip].figures["lmd_mouth"] for clip in clips])
