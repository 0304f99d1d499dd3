"""Selects the clip and the frames that define a speaker's identity: portrait clip, fitted frames, identity frame."""

import zlib
from dataclasses import dataclass

import numpy as np

from configs.schema import Config
from encoders.geometry import aperture, width
from encoders.manifest import ClipEntry
from encoders.records import FrameClip
from trajectory.model.displacement import DisplacementConfig


def portrait_clip(entries: list[ClipEntry], speaker: str) -> tuple[ClipEntry, bool]:
    """The clip from which a speaker's identity is taken, and whether it is the only one; evaluate.py scores the
    others.
    """
    clips = [e for e in entries if e.speaker == speaker]
    trained = [e for e in clips if e.split == "train"]
    return (trained or clips)[0], len(clips) == 1


def fitted_frames(total: int, config: Config) -> int:
    """Number of frames of a speaker's only clip that may be fitted to (the first target.share); the rest is scored."""
    return round(config.target.share * total)


@dataclass(frozen=True)
class Portrait:
    """Frames uint8 (K, 256, 256, 3) of one person, and their landmarks float32 (K, 68, 2)."""

    frames: np.ndarray
    landmarks: np.ndarray


def portrait_frames(clip: FrameClip, config: Config) -> Portrait:
    """Frames of the first target.share of a clip, from the lips' narrowest to their widest opening."""
    before = fitted_frames(len(clip), config)
    opening = np.where(clip.detected[:before], aperture(clip.landmarks[:before]), np.inf)
    by_opening = np.argsort(opening, kind="stable")[: max(1, int(np.isfinite(opening).sum()))]
    count = min(config.encoder.inversion.person.frames, len(by_opening))
    chosen = sorted(by_opening[np.linspace(0, len(by_opening) - 1, count).round().astype(int)].tolist())
    return Portrait(np.asarray(clip.frames[chosen]), clip.landmarks[chosen])


def reference_frame(clip: FrameClip, config: DisplacementConfig, before: int | None = None) -> int:
    """The identity frame by displacement.reference, among the first `before` frames."""
    if config.reference == "neutral":
        return neutral_frame(clip, before)
    candidates = np.flatnonzero(clip.detected[:before])
    if config.reference == "first" or not len(candidates):
        return int(candidates[0]) if len(candidates) else 0
    rng = np.random.default_rng([config.reference_seed, zlib.crc32(clip.name.encode())])
    return int(rng.choice(candidates))


def neutral_frame(clip: FrameClip, before: int | None = None) -> int:
    """The frame with a detected face (among the first `before`) whose lips are closed and of the clip's usual width."""
    landmarks, detected = clip.landmarks[:before], clip.detected[:before]
    wide = width(landmarks)
    cost = aperture(landmarks) + np.abs(wide - np.median(wide))
    return int(np.argmin(np.where(detected, cost, cost + 1e3)))
