"""What is gathered of one row of one clip while its frames pass by, and the figures that it ends in.

Both ways of scoring end here: a test clip with known landmarks (metrics.scoring.score_clips) and two videos (metrics.scoring.score_videos).
Shapes: T frames, landmarks (T, 68, 2) px of the 256 px face crop.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from audio.sync.lip_sync_net import WINDOW
from audio.timing import SAMPLES_PER_FRAME
from audio.waveform import Waveform
from encoders.features.identity import identity_cosine, identity_distance
from encoders.features.perceptual import Perceptual
from encoders.footage.faces import FaceDetector
from encoders.geometry import aperture
from encoders.lmd import mouth_distance
from metrics.measures.fid import Inception
from metrics.measures.head_motion import Flicker
from metrics.measures.intervals import mean_over
from metrics.measures.kid import Features
from metrics.measures.landmark_figures import SEQUENCE, sequence_figures
from metrics.measures.legacy_definitions import LEGACY, legacy_figures, psnr_uint8, ssim_96
from metrics.measures.psnr_ssim import identical_share, mean_psnr, psnr, ssim
from metrics.measures.sync_distance import SYNC_COLUMNS, SyncJudge, Watch, clip_figures
from metrics.scoring.control_baselines import PERCEPTUAL_ROWS

DISTANCES = ("lpips_alex", "lpips_vgg", "st_lpips_alex", "st_lpips_vgg")
MEANS = (
    *("psnr", "identical_frames", "ssim", *SEQUENCE, *SYNC_COLUMNS, "perceptual", *DISTANCES),
    *("identity", "csim_dlib", "csim_arcface", "flicker", "detection_rate", *LEGACY),
)


class Identity(Protocol):
    """encoders.features.identity.DlibIdentity: image uint8 (H, W, 3), landmarks (68, 2) -> embedding."""

    def embed(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray: ...


class AlignedIdentity(Protocol):
    """encoders.features.identity.ArcFaceIdentity: face crops uint8 (N, H, W, 3) -> unit vectors (N, D)."""

    def embed(self, frames_NHWC: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Judges:
    """The networks that look at frames; a missing one leaves its column empty.

    perceptual: the distance (vgg: the judge is not the teacher) on frames averaged to perceptual_size px, for the
    rows in perceptual_rows. distances: column -> Perceptual, for metrics.scoring.score_videos. inception: metrics.measures.fid.load_inception's
    two values. legacy: fill the columns of metrics.measures.legacy_definitions too. absent: columns that stay empty, and why.
    """

    detector: FaceDetector
    perceptual: Perceptual | None = None
    identity: Identity | None = None
    arcface: AlignedIdentity | None = None
    sync: SyncJudge | None = None
    inception: Inception | None = None
    no_inception: str | None = "no Inception network was given"
    distances: Mapping[str, torch.nn.Module] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
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


@dataclass(frozen=True)
class Faces:
    """Embeddings of the true identity frame by each identity judge."""

    dlib: np.ndarray | None = None
    arcface: np.ndarray | None = None

    @classmethod
    def of(cls, crop: np.ndarray, landmarks: np.ndarray, judges: Judges) -> "Faces":
        return cls(
            None if judges.identity is None else judges.identity.embed(crop, landmarks),
            None if judges.arcface is None else judges.arcface.embed(crop[None])[0],
        )


@dataclass
class Gathered:
    """One row's frames so far: landmarks (68, 2) each, whether a face was found, quads (4, 2), and running columns."""

    name: str
    judges: Judges
    landmarks: list[np.ndarray] = field(default_factory=list)
    detected: list[bool] = field(default_factory=list)
    quads: list[np.ndarray] = field(default_factory=list)
    columns: dict[str, list[float]] = field(default_factory=dict)
    flicker: Flicker = field(default_factory=Flicker)
    legacy: list[tuple[float, float]] = field(default_factory=list)
    features: Features = field(default_factory=Features)
    watch: Watch | None = None
    likeness: tuple[np.ndarray, Faces] | None = None  # the crop that was identified last, and as whom
    video: np.ndarray | None = None  # sync embeddings, once the row is over

    def note(self, column: str, *values: float) -> None:
        self.columns.setdefault(column, []).extend(values)

    def see(self, points: np.ndarray | None, instead: np.ndarray, face_crop: np.ndarray) -> None:
        """A frame's face crop and landmarks; without a detected face `instead`, those of the static row."""
        self.landmarks.append(instead if points is None else points)
        self.detected.append(points is not None)
        if self.judges.sync is not None:
            self.watch = self.watch or self.judges.sync.watch()
            self.watch.add(face_crop)

    def compare(self, frames: Iterable[np.ndarray], true: Iterable[np.ndarray]) -> None:
        """Image figures of pictures uint8 (H, W, 3) and the true ones."""
        both = list(zip(frames, true, strict=True))
        self.note("psnr", *(psnr(a, b) for a, b in both))
        self.note("ssim", *(ssim(a, b) for a, b in both))
        if self.judges.legacy:
            self.legacy += [(psnr_uint8(a, b), ssim_96(a, b)) for a, b in both]
        self.flicker.update(a for a, _ in both)

    def identify(self, face_crop: np.ndarray, true: Faces) -> None:
        """Likeness of the frame seen last to the true identity frame; one without a detected face resembles nobody."""
        if self.likeness is None or not np.array_equal(self.likeness[0], face_crop):  # a frozen face: once
            self.likeness = face_crop, Faces.of(face_crop, self.landmarks[-1], self.judges)
        mine, found = self.likeness[1], self.detected[-1]
        if mine.dlib is not None and true.dlib is not None:
            self.note("identity", identity_distance(mine.dlib, true.dlib))
            self.note("csim_dlib", identity_cosine(mine.dlib, true.dlib) if found else 0.0)
        if mine.arcface is not None and true.arcface is not None:
            self.note("csim_arcface", identity_cosine(mine.arcface, true.arcface) if found else 0.0)

    def finish(self) -> None:
        """Sync embeddings of what was seen; a clip shorter than one window has none."""
        if self.watch is not None and len(self.landmarks) >= WINDOW:
            self.video, self.watch = self.watch.embeddings(), None

    def score(
        self,
        place: tuple[str, str, str],
        known: np.ndarray,
        true: np.ndarray,
        sound: np.ndarray | None = None,
        true_quads: np.ndarray | None = None,
    ) -> ClipScore:
        """The clip's figures. place: split, clip, speaker. true (T, 68, 2), of which those with known (T,) count;
        sound: its embeddings by the sync judge. true_quads (T, 4, 2): together with the row's own."""
        self.finish()
        predicted, detected = np.stack(self.landmarks)[known], np.array(self.detected)[known]
        quads = None if true_quads is None else np.stack(self.quads)[known]
        shown = true[known]
        psnrs = self.columns.get("psnr", [])
        figures: dict[str, float | None] = dict.fromkeys(MEANS)
        figures |= {name: mean_over(values) for name, values in self.columns.items()}
        figures |= {"psnr": mean_psnr(psnrs), "identical_frames": identical_share(psnrs)}
        figures |= {"flicker": self.flicker.value, "detection_rate": float(np.mean(self.detected))}
        figures |= sequence_figures(
            predicted, shown, detected, quads, None if true_quads is None else true_quads[known]
        )
        figures |= clip_figures(self.judges.sync, self.video, sound)
        if self.legacy:
            figures |= legacy_figures(predicted, shown, self.legacy)
        error = np.full(len(known), np.nan)
        if known.any():
            error[known] = mouth_distance(predicted, shown)
        split, clip, speaker = place
        opening, true_opening = aperture(predicted), aperture(shown)
        return ClipScore(
            self.name, split, clip, len(known), figures, opening, true_opening, speaker=speaker, error=error
        )


def heard(judges: Judges, samples: np.ndarray | None, frames: int) -> np.ndarray | None:
    """The sync judge's embeddings (W, D) of the sound of `frames` video frames; None without judge or sound.

    samples (S,): 16 kHz; silence is added where it ends early.
    """
    if judges.sync is None or samples is None or frames < WINDOW:
        return None
    samples = np.pad(samples, (0, max(0, frames * SAMPLES_PER_FRAME - len(samples))))
    waveform = Waveform(np.ascontiguousarray(samples[: frames * SAMPLES_PER_FRAME], dtype=np.float32))
    return judges.sync.listen(waveform, frames)
