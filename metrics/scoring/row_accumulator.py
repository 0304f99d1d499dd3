"""The judges, and the accumulator that computes the figures of one row of one clip from its frames.

metrics.scoring.score_clips (test clips with known landmarks) and metrics.scoring.score_videos (pairs of videos) both use it.
Shapes: T frames, landmarks (T, 68, 2) px of the 256 px face crop.
"""

from collections.abc import Collection, Iterable, Mapping
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
from metrics.measures.dynamics import DYNAMICS, dynamics_figures, motion_of
from metrics.measures.fid import Inception
from metrics.measures.fvd import I3D, Window
from metrics.measures.head_motion import Flicker
from metrics.measures.intervals import mean_over
from metrics.measures.kid import Features
from metrics.measures.landmark_figures import SEQUENCE, sequence_figures
from metrics.measures.legacy_definitions import LEGACY, LegacyFigures
from metrics.measures.lip_silence import SILENCE, silence_figures
from metrics.measures.psnr_ssim import identical_share, mean_psnr, psnr, ssim
from metrics.measures.sharpness import SHARPNESS, Sharpness, StillFlicker
from metrics.measures.sync_distance import SYNC_COLUMNS, SyncJudge, VideoEmbedder, clip_figures
from metrics.scoring.control_baselines import PERCEPTUAL_ROWS
from stylegan2.images import to_tensor

DISTANCES = ("lpips_alex", "lpips_vgg", "st_lpips_alex", "st_lpips_vgg")
MEANS = (  # figures of a clip; a row's figures are their means over clips
    *("psnr", "identical_frames", "ssim", *SEQUENCE, *SYNC_COLUMNS, "perceptual", *DISTANCES),
    *("identity", "sface", "csim_dlib", "csim_arcface", "flicker", "detection_rate"),
    *(*SILENCE, *DYNAMICS, *SHARPNESS, *LEGACY),
)


class Identity(Protocol):
    """DlibIdentity, SFaceIdentity of encoders.features: image uint8 (H, W, 3), landmarks (68, 2) -> embedding."""

    def embed(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray: ...


class AlignedIdentity(Protocol):
    """encoders.features.identity.ArcFaceIdentity: face crops uint8 (N, H, W, 3) -> unit vectors (N, D)."""

    def embed(self, frames_NHWC: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Judges:
    """The networks and detectors that evaluate frames. If one is missing, its columns stay empty."""

    detector: FaceDetector
    # Distance of the column `perceptual`; its network is not the one that training minimises
    perceptual: Perceptual | None = None
    identity: Identity | None = None
    sface: Identity | None = None
    arcface: AlignedIdentity | None = None
    sync: SyncJudge | None = None
    # The two values of metrics.measures.fid.load_inception
    inception: Inception | None = None
    no_inception: str | None = "no Inception network was given"
    # The two values of metrics.measures.fvd.load_i3d
    i3d: I3D | None = None
    no_i3d: str | None = "no I3D network was given"
    # Column -> distance, for metrics.scoring.score_videos
    distances: Mapping[str, torch.nn.Module] = field(default_factory=dict)
    # Column that stays empty -> reason
    absent: Mapping[str, str] = field(default_factory=dict)
    # Frames are area-averaged to this size (px) for the perceptual distances
    perceptual_size: int = 128
    # Rows for which the column `perceptual` is computed
    perceptual_rows: tuple[str, ...] = PERCEPTUAL_ROWS
    device: str = "cpu"
    # Whether to fill the columns of metrics.measures.legacy_definitions too
    legacy: bool = False

    @property
    def keep_features(self) -> bool:
        """Whether features are collected over all clips, for FID, KID or FVD."""
        return self.inception is not None or self.i3d is not None


@dataclass(frozen=True)
class ClipScore:
    """One clip of one row. figures: one value or None for each of MEANS.

    n_frames: scored frames T. aperture, true_aperture: of the T' frames with known true landmarks. error (T,): mouth
    distance of each frame in px, nan where the true landmarks are unknown.
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
class FaceEmbeddings:
    """Embeddings of one face crop by the identity judges."""

    dlib: np.ndarray | None = None
    sface: np.ndarray | None = None
    arcface: np.ndarray | None = None

    @classmethod
    def of(cls, crop: np.ndarray, landmarks: np.ndarray, judges: Judges) -> "FaceEmbeddings":
        return cls(
            None if judges.identity is None else judges.identity.embed(crop, landmarks),
            None if judges.sface is None else judges.sface.embed(crop, landmarks),
            None if judges.arcface is None else judges.arcface.embed(crop[None])[0],
        )


@dataclass
class RowAccumulator:
    """Accumulates the frames of one row of one clip, and computes the clip's figures from them."""

    name: str
    judges: Judges
    landmarks: list[np.ndarray] = field(default_factory=list)  # (68, 2) per frame
    detected: list[bool] = field(default_factory=list)  # whether a face was found
    quads: list[np.ndarray] = field(
        default_factory=list
    )  # (4, 2) per frame: corners of the crop in the frame
    columns: dict[str, list[float]] = field(
        default_factory=dict
    )  # values per frame, of which the mean is taken
    flicker: Flicker = field(default_factory=Flicker)
    sharpness: Sharpness = field(default_factory=Sharpness)
    still: StillFlicker = field(default_factory=StillFlicker)
    legacy: LegacyFigures = field(default_factory=LegacyFigures)
    features: Features = field(default_factory=Features)
    window: Window = field(default_factory=Window)
    video_embedder: VideoEmbedder | None = None
    video: np.ndarray | None = None  # sync embeddings (W, D) of the whole row
    last_identified: tuple[np.ndarray, FaceEmbeddings] | None = None  # face crop and its embeddings

    def add_values(self, column: str, *values: float) -> None:
        self.columns.setdefault(column, []).extend(values)

    def add_face(self, points: np.ndarray | None, static_points: np.ndarray, face_crop: np.ndarray) -> None:
        """Adds a frame's face crop and landmarks. points: None if no face was detected; the static row's landmarks are
        used then.
        """
        self.landmarks.append(static_points if points is None else points)
        self.detected.append(points is not None)
        self.sharpness.update(face_crop)
        self.still.update(face_crop)
        if self.judges.sync is not None:
            self.video_embedder = self.video_embedder or self.judges.sync.video_embedder()
            self.video_embedder.add(face_crop)

    def add_images(self, frames: Iterable[np.ndarray], true: Iterable[np.ndarray]) -> None:
        """Adds the image figures of frames uint8 (H, W, 3) against the true ones."""
        pairs = list(zip(frames, true, strict=True))
        self.add_values("psnr", *(psnr(a, b) for a, b in pairs))
        self.add_values("ssim", *(ssim(a, b) for a, b in pairs))
        self.flicker.update(a for a, _ in pairs)
        if self.judges.legacy:
            for a, b in pairs:
                self.legacy.update(a, b)

    def add_features(
        self, frames: np.ndarray, clip: str, first: int, into: Collection[Features] | None = None
    ) -> None:
        """Adds the Inception features of frames uint8 (N, H, W, 3), which are first, first + 1, ... of the clip, and the
        I3D features of the windows that they complete. into: objects that take them, by default the row's own."""
        collections = (self.features,) if into is None else into
        if self.judges.inception is not None:
            vectors = self.judges.inception(to_tensor(frames, self.judges.device))
            for collection in collections:
                collection.update(vectors, clip, first)
        if self.judges.i3d is not None:
            for t, frame in enumerate(frames, first):
                if (window := self.window.completed(frame, t)) is not None:
                    vector = self.judges.i3d(window)
                    for collection in collections:
                        collection.windows.update(vector)

    def embeddings(self, face_crop: np.ndarray) -> FaceEmbeddings:
        """Of the last added face; a repeated frame is embedded only once."""
        if self.last_identified is None or not np.array_equal(self.last_identified[0], face_crop):
            self.last_identified = face_crop, FaceEmbeddings.of(face_crop, self.landmarks[-1], self.judges)
        return self.last_identified[1]

    def add_identity(self, predicted: FaceEmbeddings, true: FaceEmbeddings) -> None:
        """Adds the similarity of the last added face to the true identity frame; cosines are 0 if no face was found."""
        if predicted.dlib is not None and true.dlib is not None:
            self.add_values("identity", identity_distance(predicted.dlib, true.dlib))
        for column, a, b in (
            ("sface", predicted.sface, true.sface),
            ("csim_dlib", predicted.dlib, true.dlib),
            ("csim_arcface", predicted.arcface, true.arcface),
        ):
            if a is not None and b is not None:
                self.add_values(column, identity_cosine(a, b) if self.detected[-1] else 0.0)

    def own_figures(
        self, sound: np.ndarray | None, silent: np.ndarray | None, identity_crop: np.ndarray | None
    ) -> dict[str, float | None]:
        """The figures that compare no frame with a true one, and the means of the columns; the others are None. See
        `score` for the arguments."""
        if self.video_embedder is not None and len(self.landmarks) >= WINDOW:
            self.video, self.video_embedder = self.video_embedder.embeddings(), None
        figures: dict[str, float | None] = dict.fromkeys(MEANS)
        figures |= {name: mean_over(values) for name, values in self.columns.items()}
        figures |= {"flicker": self.flicker.value, "still_flicker": self.still.value}
        figures |= {"detection_rate": float(np.mean(self.detected))}
        figures |= clip_figures(self.judges.sync, self.video, sound)
        if silent is not None:
            figures |= silence_figures(aperture(np.stack(self.landmarks)), np.array(self.detected), silent)
        if identity_crop is not None:
            figures |= self.sharpness.values(identity_crop)
        return figures

    def score(
        self,
        split: str,
        clip: str,
        speaker: str,
        known: np.ndarray,
        true: np.ndarray,
        sound: np.ndarray | None = None,
        true_quads: np.ndarray | None = None,
        silent: np.ndarray | None = None,
        identity_crop: np.ndarray | None = None,
    ) -> ClipScore:
        """The figures of the clip. true (T, 68, 2): true landmarks, valid where known (T,). sound: its embeddings by the
        sync judge. true_quads (T, 4, 2): given if the row has quads too. silent (T,): where the speech is silent; None
        without sound. identity_crop: face crop of the true identity frame, to which sharpness is relative."""
        figures = self.own_figures(sound, silent, identity_crop)
        # Dynamics, of the frames in which both faces were found
        landmarks, found = np.stack(self.landmarks), np.array(self.detected)
        quads = None if true_quads is None else np.stack(self.quads)
        motions = motion_of(landmarks, known & found, quads), motion_of(true, known & found, true_quads)
        figures |= dynamics_figures(*motions)
        # Comparisons frame by frame, where the true landmarks are known
        predicted, true, detected = landmarks[known], true[known], found[known]
        all_quads = (None if q is None else q[known] for q in (quads, true_quads))
        psnrs = self.columns.get("psnr", [])
        figures |= {"psnr": mean_psnr(psnrs), "identical_frames": identical_share(psnrs)}
        figures |= sequence_figures(predicted, true, detected, *all_quads)
        figures |= self.legacy.values(predicted, true)
        error = np.full(len(known), np.nan)
        if known.any():
            error[known] = mouth_distance(predicted, true)
        curves = aperture(predicted), aperture(true)
        return ClipScore(self.name, split, clip, len(known), figures, *curves, speaker=speaker, error=error)


def sound_embeddings(judges: Judges, samples: np.ndarray | None, frames: int) -> np.ndarray | None:
    """The sync judge's embeddings (W, D) of the sound of `frames` video frames; None without judge or sound.

    samples (S,): 16 kHz; a sound that ends early is padded with silence.
    """
    if judges.sync is None or samples is None or frames < WINDOW:
        return None
    samples = np.pad(samples, (0, max(0, frames * SAMPLES_PER_FRAME - len(samples))))
    waveform = Waveform(np.ascontiguousarray(samples[: frames * SAMPLES_PER_FRAME], dtype=np.float32))
    return judges.sync.embed_sound(waveform, frames)
