"""Score rows clip by clip: predicted frames are consumed as they are made, never kept.

Shapes: T frames of a clip; landmarks (T, 68, 2) in px of the 256 px crop. The truth's landmarks are the clip's own,
the prediction's are what the judge finds on its crops. All figures of a clip are means over its frames, all figures
of a row means over its clips.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audio.timing import SAMPLES_PER_FRAME
from encoders.features.perceptual import Perceptual
from encoders.footage.align import CROP_SIZE
from encoders.footage.faces import face_in_crop
from encoders.records import FrameClip
from metrics.measures.fid import fid_of
from metrics.measures.intervals import bootstrap_interval, mean_over, speaker_interval
from metrics.measures.kid import Features, kid_of
from metrics.measures.lip_motion import lip_gain
from metrics.scoring.clip_score import MEANS, ClipScore, Faces, Gathered, Judges, heard
from stylegan2.images import resize, to_tensor, to_uint8


def stride_for(total_frames: int, wanted: int = 200) -> int:
    """k so that every k-th of total_frames is about `wanted` frames; at least 1."""
    return max(1, round(total_frames / wanted))


REMEMBERED = 32  # frames of a clip whose perceptual features are kept: 8 MB each at 128 px


@dataclass(frozen=True)
class Truth:
    """What all rows of one clip are compared with, found once: of the true identity frame its landmarks by the judge
    (68, 2) and whom it shows; perceptual features of the frames that have been looked at."""

    landmarks: np.ndarray
    faces: Faces
    features: dict[int, list[Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, clip: FrameClip, ref_index: int, judges: Judges) -> "Truth":
        frame = _at_crop_size(np.asarray(clip.frames[ref_index]))
        face = face_in_crop(judges.detector, frame)
        landmarks = face.landmarks if face is not None else np.asarray(clip.landmarks[ref_index])
        return cls(landmarks, Faces.of(frame, landmarks, judges))


def score_clip(
    row: str,
    clip: FrameClip,
    frames: Iterable[np.ndarray],
    judges: Judges,
    truth: Truth,
    every: int = 1,
    skip: Collection[int] = (),
    split: str | None = None,
    features: Iterable[Features] = (),
) -> ClipScore:
    """Compares the predicted frames, one uint8 (H, W, 3) for each frame of the clip, with the truth.

    truth: of this clip and these judges. every: perceptual and identity look at every k-th scored frame.
    skip: frames that are not scored, such as those used for tuning. features: gather Inception features, all the same.

    A frame without a detected face takes the landmarks of the static row (the judge's, on the identity frame) and
    closes no lips. Frames whose truth has no landmarks count for the images only, in all rows alike.
    """
    seen = Gathered(row, judges)
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
        seen.see(None if face is None else face.landmarks, truth.landmarks, frame)
        seen.compare([frame], [true])
        if t in sampled:
            _sample(t, frame, true, truth, seen)
        if judges.inception is not None:
            found = judges.inception(to_tensor(frame, judges.device))
            for gathered in features:
                gathered.update(found, clip.name, t)
    if count != len(clip.frames):
        raise ValueError(f"row {row} has {count} frames for {clip.name}, the clip has {len(clip.frames)}")
    known = np.asarray(clip.detected, dtype=bool)[scored]
    whole = scored[-1] - scored[0] + 1 == len(scored)  # sync needs frames that follow one another
    sound = heard(judges, clip.waveform[scored[0] * SAMPLES_PER_FRAME :], len(scored)) if whole else None
    place = (split or clip.split, clip.name, clip.speaker)
    return seen.score(place, known, np.asarray(clip.landmarks)[scored], sound)


@torch.inference_mode()
def _sample(t: int, frame: np.ndarray, true: np.ndarray, truth: Truth, seen: Gathered) -> None:
    judges, distance = seen.judges, seen.judges.perceptual
    if distance is not None and seen.name in judges.perceptual_rows:
        known = truth.features.get(t)
        if known is None:
            known = _features(true, distance, judges)
            if len(truth.features) < REMEMBERED:
                truth.features[t] = known
        seen.note("perceptual", float(distance.between(_features(frame, distance, judges), known)))
    seen.identify(frame, truth.faces)


def _features(frame: np.ndarray, distance: Perceptual, judges: Judges) -> list[Tensor]:
    return distance.features(resize(to_tensor(frame, judges.device), judges.perceptual_size))


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
        self.last: tuple[FrameClip, int, Truth] | None = None  # the clip that was scored last
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
        also: str | None = None,
    ) -> ClipScore:
        """Scores one clip of one row (see score_clip) and keeps the figures; the rows of a clip one after another.

        ref_index: the true identity frame. split: "tuned" or the clip's own. also: another split whose Fréchet
        distances its frames count for."""
        features = []
        if self.judges.inception is not None:
            splits = {split or clip.split, also or split or clip.split}
            features = [self.features.setdefault((row, name), Features()) for name in splits]
        if self.last is None or self.last[0] is not clip or self.last[1] != ref_index:
            self.last = clip, ref_index, Truth.of(clip, ref_index, self.judges)
        score = score_clip(row, clip, frames, self.judges, self.last[2], every, skip, split, features)
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

    lip_gain takes static and inversion on the clips that the row has. A clip identical to the truth has no finite
    PSNR: `n_psnr` clips have one, and over these is the mean.
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
        record["n_psnr"] = sum(score.figures["psnr"] is not None for score in clips.values())
        record |= {"n_speakers": len(set(speakers)), "interval": interval, "interval_speakers": over_speakers}
        rows.append(record)
    return rows


def _mean_mouth(anchor: Mapping[str, ClipScore], clips: Collection[str]) -> float | None:
    if not all(clip in anchor for clip in clips):
        return None
    return mean_over([anchor[clip].figures["lmd_mouth"] for clip in clips])
