"""Aligns a video into a FrameClip, and a photo into its crop.

The video is read twice, so that only 256 px crops are held in memory: the first pass finds the face, the second cuts
it out along the smoothed track. Shapes: T frames at 25 fps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from audio.timing import FPS, samples_of_frames
from encoders.footage.align import (
    CROP_SIZE,
    crop,
    ffhq_quad,
    interpolate_missing,
    smooth_quads,
    transform_points,
)
from encoders.footage.faces import Face, FaceDetector, FaceError, face_in_crop, has_rival, single_face
from encoders.footage.file_names import legible
from encoders.footage.picture_folder import picture_frames, probe_pictures, source_hash
from encoders.footage.turned import upright_faces
from encoders.footage.video_reader import VideoError, iter_frames, probe, read_audio
from encoders.jpeg_frames import JpegFrames
from encoders.records import FrameClip
from stylegan2.images import read_rgb


@dataclass
class PrepareConfig:
    """Settings for tracking and cropping the face of a clip, and the conditions for rejecting a clip."""

    size: int = CROP_SIZE  # px, side of the crop: the resolution of the embedded generator
    # Smoothing over time, standard deviations in frames: the crop's centre follows the head, its size and rotation
    # change slowly.
    sigma_centre: float = 1.0
    sigma_axes: float = 3.0
    # Every so many frames the whole frame is searched; otherwise the surroundings of the last face
    check_every: int = 10
    # A clip is rejected if ...
    max_rival: float = 0.2  # more than this share of its frames shows a second large face
    max_missing: float = 0.2  # more than this share of its frames shows no face
    max_jump: float = 0.6  # the face moves further than this between two frames, in face sizes (a cut)
    min_frames: int = 10  # it has fewer frames than this
    min_sound: float = 0.8  # its sound covers less than this share of its duration
    # ... or a figure of clip_figures.py or, with sync=auto, of synchronise.py lies below its limit; 0: no limit
    min_detected: float = 0.0
    min_face_px: float = 0.0
    min_sharpness: float = 0.0
    min_sync_certainty: float = 0.0
    # Offset of the sound: "auto": estimated for each clip, or for each speaker with data.one_sound_offset, and removed
    # where the estimate is certain (audio/sync/sound_offset.py); "none"; or the number of frames by which the sound is
    # late. Embedded speakers have none.
    sync: str = "auto"

    def __post_init__(self) -> None:
        for name in ("max_rival", "max_missing", "min_sound"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a share between 0 and 1, got {getattr(self, name)}")
        for name in ("size", "check_every", "min_frames", "max_jump"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if min(self.sigma_centre, self.sigma_axes) < 0:
            raise ValueError("sigma_centre and sigma_axes cannot be negative")
        if self.sync not in ("auto", "none") and self.stated_offset is None:
            raise ValueError(f"prepare.sync is {self.sync!r}; it must be auto, none or a number of frames")

    @property
    def stated_offset(self) -> float | None:
        """The offset in frames, if prepare.sync is a number."""
        try:
            return float(self.sync)
        except ValueError:
            return None

    def unsuitable(self, figures: Mapping[str, float]) -> str:
        """The first figure that lies below its limit, as a reason for the rejection; "" if there is none."""
        for name, value in figures.items():
            limit = getattr(self, f"min_{name}", None)  # the offset of the sound has none
            if limit is not None and value < limit:
                return f"{name} is {value:g}, below prepare.min_{name}={limit:g}"
        return ""


class FaceTracker:
    """Tracks one face: called with every frame in order, returns the face, or None if none is found."""

    def __init__(self, detector: FaceDetector, check_every: int = 10) -> None:
        self.detector, self.check_every = detector, check_every
        self.frames = self.rival_frames = self.lost = 0
        self._last: Face | None = None
        self._rival = False

    def __call__(self, frame: np.ndarray) -> Face | None:
        check = self.frames % self.check_every == 0
        faces: list[Face] = []
        if self._last is not None and not check:
            faces = self.detector(frame, near=self._last.box)
        # In the first frame without the face the whole frame is searched; after that only at the regular checks, to
        # save time.
        if check or (not faces and self._last is not None and self.lost == 0):
            faces = self.detector(frame)
            self._rival = has_rival(faces)
        self.frames += 1
        self.rival_frames += self._rival
        face = self._chosen(faces)
        self.lost = 0 if face is not None else self.lost + 1
        if face is not None:
            self._last = face
        elif self.lost >= self.check_every:
            self._last = None
        return face

    def _chosen(self, faces: list[Face]) -> Face | None:
        """The face nearest to the tracked one, or the largest one if none is tracked yet."""
        if self._last is None or len(faces) < 2:
            return faces[0] if faces else None
        place = self._last.box
        return min(faces, key=lambda face: float(np.abs(face.box - place).sum()))


def track_face(
    path: str | Path, detector: FaceDetector, config: PrepareConfig, fps: int | Fraction = FPS
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks float32 (T, 68, 2) px of the frame, interpolated where missing, and detected bool (T,), at `fps`.

    Raises FaceError (no face or two faces too often, a jump) and VideoError (unreadable, too short).
    """
    info = probe_pictures(Path(path)) if Path(path).is_dir() else probe(path)
    expected = max(1, round(info.duration * fps))
    tracker = FaceTracker(detector, config.check_every)
    points: list[np.ndarray] = []
    missing = 0
    last: tuple[int, Face] | None = None
    # Find the face in every frame; stop as soon as too many frames of the whole video show none.
    for index, frame in enumerate(_frames(Path(path), fps)):
        face = tracker(frame)
        if face is None:
            points.append(np.full((68, 2), np.nan, np.float32))
            missing += 1
        else:
            points.append(face.landmarks)
            if last is not None:
                _check_jump(path, last, (index, face), config.max_jump, fps)
            last = (index, face)
        if missing > config.max_missing * max(expected, config.min_frames, len(points)):
            break
    # Reject the clip if it is too short, or shows no face or two faces too often.
    landmarks = np.stack(points)
    detected = np.isfinite(landmarks[:, 0, 0])
    if len(detected) < config.min_frames and detected.any():
        raise VideoError(
            f"{path} lasts {len(detected) / float(fps):.2f} s; a clip needs at least {config.min_frames / float(fps):.2f} s"
        )
    if (~detected).sum() > config.max_missing * len(detected):
        first = int(np.flatnonzero(~detected)[0]) / float(fps)
        raise FaceError(
            f"{path} shows no face in too many of its frames (the first one at {first:.1f} s); "
            "use footage that shows one face, larger, from the front and all the time"
        )
    if tracker.rival_frames > config.max_rival * len(detected):
        raise FaceError(
            f"{path} shows two faces of similar size in {tracker.rival_frames} of {len(detected)} frames; "
            "cut the picture down to one person"
        )
    return interpolate_missing(landmarks, detected), detected


def _frames(
    path: Path, fps: int | Fraction = FPS, reading: dict[str, str] | None = None
) -> Iterator[np.ndarray]:
    return picture_frames(path) if path.is_dir() else iter_frames(path, fps, reading)


def _check_jump(
    path: str | Path, before: tuple[int, Face], now: tuple[int, Face], limit: float, fps: int | Fraction
) -> None:
    """Raises FaceError if the face moved more than `limit` face sizes a frame between two (frame index, face)."""
    steps = now[0] - before[0]
    old, new = (f.landmarks.mean(axis=0) for f in (before[1], now[1]))
    if np.linalg.norm(new - old) > limit * steps * max(before[1].size, now[1].size):
        raise FaceError(
            f"the face in {path} jumps at {now[0] / float(fps):.2f} s (a cut, or another person); split the video there"
        )


def prepare_clip(
    path: str | Path,
    detector: FaceDetector,
    name: str,
    speaker: str,
    sentence: str,
    split: str,
    config: PrepareConfig | None = None,
    sound: str | Path | None = None,
) -> FrameClip:
    """Aligns one video, or a folder of pictures. sound: a file with the sound, where the video has none. Raises VideoError, AudioError or FaceError, whose message is the reason for the rejection.

    The clip's landmarks are those found in each finished crop (as decoded from its JPEG), because the metrics find
    the landmarks of generated frames in the same way. Where that fails, `detected` is False and the landmarks of the
    source frame are kept.
    """
    path, config = Path(path), config or PrepareConfig()
    if path.is_dir() and sound is None:
        raise VideoError(
            f"{path} is a folder of pictures without sound; say where the sound is with data.sound"
        )
    own_sound = path.is_file() and (sound is None or probe(path).has_audio)
    sound = None if own_sound or sound is None else Path(sound)
    # The sound is read first, because that is fast and a clip without sound is rejected.
    reading: dict[str, str] = {}
    waveform = read_audio(sound or path, reading)
    landmarks, found_in_frame = track_face(path, detector, config)
    frames = len(landmarks)
    if len(waveform.samples) < config.min_sound * samples_of_frames(frames):
        raise VideoError(
            f"the sound of {sound or path} lasts {waveform.seconds:.2f} s and its pictures {frames / FPS:.2f} s; "
            "give a recording with sound to its end"
        )
    quads = smooth_quads(ffhq_quad(landmarks), config.sigma_centre, config.sigma_axes)
    jpegs = JpegFrames.encode(
        crop(frame, quad, config.size)
        for frame, quad in zip(_frames(path, reading=reading), quads, strict=True)
    )
    in_crop = np.stack([transform_points(p, q, config.size) for p, q in zip(landmarks, quads, strict=True)])
    detected = np.zeros(frames, dtype=bool)
    for index, image in enumerate(jpegs):
        if (face := face_in_crop(detector, image)) is not None:
            in_crop[index], detected[index] = face.landmarks, True
    samples = waveform.samples[: samples_of_frames(frames)]
    return FrameClip(
        name=name,
        speaker=speaker,
        sentence=sentence,
        split=split,
        source=legible(path.name),
        source_hash=source_hash(path, sound),
        frames=jpegs,
        landmarks=interpolate_missing(in_crop, detected | found_in_frame),
        quads=quads,
        detected=detected,
        waveform=np.pad(samples, (0, samples_of_frames(frames) - len(samples))).astype(np.float32),
        reading="; ".join(reading.values()),
    )


@dataclass(frozen=True, eq=False)
class AlignedPhoto:
    crop: np.ndarray  # uint8 (256, 256, 3)
    landmarks: np.ndarray  # float32 (68, 2), px of the crop
    turned: int  # degrees counterclockwise by which the photo was turned to have its face upright: 0, 90, 180 or 270
    quad: np.ndarray  # float32 (4, 2), the crop's corners in px of the photo


def read_photo(path: str | Path) -> np.ndarray:
    """An image file as uint8 (H, W, 3) RGB, rotated upright by its EXIF tag, reduced to at most 4096 px. Raises VideoError."""
    path = Path(path)
    if not path.is_file():
        raise VideoError(f"photo {path} does not exist; check the path")
    try:
        return np.array(read_rgb(path))
    except (OSError, ValueError) as error:
        raise VideoError(
            f"{path} is not a picture that can be read ({error}); give a JPEG or PNG file"
        ) from error


def align_photo(
    image: np.ndarray, detector: FaceDetector, what: str | Path = "the photo", size: int = CROP_SIZE
) -> AlignedPhoto:
    """The FFHQ crop of the one face of an image uint8 (H, W, 3), which may be turned by quarter turns. Raises FaceError,
    naming the photo `what`, otherwise.
    """
    image, faces, turns = upright_faces(image, detector)
    face = single_face(faces, what)
    quad = ffhq_quad(face.landmarks)
    aligned = crop(image, quad, size)
    in_crop = face_in_crop(detector, aligned)
    landmarks = in_crop.landmarks if in_crop else transform_points(face.landmarks, quad, size)
    return AlignedPhoto(aligned, landmarks, 90 * turns, quad)
