"""The records that stages pass to each other: paths of their files, and arrays."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from audio.waveform import Waveform
from encoders.manifest import ClipEntry, Manifest, read_manifest
from encoders.records import FrameClip, LatentClip
from trajectory.adapt.adaptation_data import PersonalSpeech


@dataclass(frozen=True)
class Prepared:
    """The output of prepare_data: a folder with one FrameClip file for each usable video, and manifest.json."""

    folder: Path

    @cached_property
    def manifest(self) -> Manifest:
        return read_manifest(self.folder)


@dataclass(frozen=True)
class Latents:
    """The output of invert_frames: a folder with one LatentClip file for each clip of `prepared`, and manifest.json."""

    folder: Path
    prepared: Path  # folder of the FrameClip files

    @property
    def name(self) -> str:
        """The folder's name, which contains the hash of all inputs of the codes."""
        return self.folder.name

    @cached_property
    def manifest(self) -> Manifest:
        return read_manifest(self.folder)

    def entries(self, *splits: str) -> list[ClipEntry]:
        """The usable clips, of these splits only if any are given."""
        return self.manifest.ok(*splits)

    def frames(self, entry: ClipEntry) -> FrameClip:
        return FrameClip.load(self.prepared / entry.file)

    def codes(self, entry: ClipEntry) -> LatentClip:
        return LatentClip.load(self.folder / entry.file)


@dataclass(frozen=True)
class Face:
    """The person to animate, from a photo, a video or a speaker of the data."""

    name: str
    frames: np.ndarray  # uint8 (N, 256, 256, 3): the frames that stage 2 may be tuned on
    landmarks: np.ndarray  # float32 (N, 68, 2): theirs, px of the crop
    w: np.ndarray  # float32 (N, L, D): their codes
    neutral: np.ndarray  # uint8 (256, 256, 3): the identity frame
    w_ref: np.ndarray  # float32 (L, D): the identity latent, the code of the identity frame
    offset: np.ndarray | None = (
        None  # float32 (L, D): the part of these codes that all of a person's codes share
    )
    clip: str | None = None  # name of the clip of the data that the frames come from
    used: int = 0  # number of first frames of that clip that may be fitted to; evaluation scores the others
    ref_index: int = 0  # number of the identity frame in that clip
    speech: Waveform | None = None  # sound of the frames after `used`, if the speaker has one clip only
    own: PersonalSpeech | None = None  # speech and codes of the first `used` frames, for adapting stage 1


@dataclass(frozen=True)
class Person:
    """A face with the files that stage 2 made for it: the tuned generator and the adapted stage 1, or None."""

    face: Face
    tuned: Path | None = None
    adapted: Path | None = None
