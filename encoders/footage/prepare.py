"""Footage -> FrameClip, and a photo -> its aligned crop.

Two passes over the video, so that only 256 px crops are ever held: the first finds the face, the second cuts it out
along the smoothed path. T: frames at 25 fps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from audio.timing import FPS, samples_of_frames
from audio.waveform import Waveform
from encoders.footage.align import (
    CROP_SIZE,
    crop,
    ffhq_quad,
    interpolate_missing,
    smooth_quads,
    transform_points,
)
from encoders.footage.faces import Face, FaceDetector, FaceError, face_in_crop, has_rival, single_face
from encoders.footage.video_reader import VideoError, iter_frames, probe, read_audio
from encoders.jpeg_frames import JpegFrames
from encoders.records import FrameClip
from stylegan2.images import upright_rgb
from stylegan2.weights import file_hash


@dataclass
class PrepareConfig:
    """How a clip is tracked, cut and judged; lengths in frames, shares of all frames.

    check_every: how often the whole frame is searched; in between only the surroundings of the last face are.
    max_rival: a clip is rejected if a second large face shows in more than this share of the frames.
    max_missing: or if no face is found in more than this share. max_jump: or if the face moves further than this
    (in face sizes) from one frame to the next, which is a cut. min_sound: or if the sound covers less of it.
    """

    size: int = CROP_SIZE
    sigma_centre: float = 1.0
    sigma_axes: float = 3.0
    check_every: int = 10
    max_rival: float = 0.2
    max_missing: float = 0.2
    max_jump: float = 0.6
    min_frames: int = 10
    min_sound: float = 0.8

    def __post_init__(self) -> None:
        for name in ("max_rival", "max_missing", "min_sound"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a share between 0 and 1, got {getattr(self, name)}")
        for name in ("size", "check_every", "min_frames", "max_jump"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if min(self.sigma_centre, self.sigma_axes) < 0:
            raise ValueError("sigma_centre and sigma_axes cannot be negative")


class FaceTracker:
    """One face from frame to frame. Feed every frame in order; None where it is lost."""

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
        # Right after a loss the whole frame is searched once; a long absence only costs the regular checks.
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
        """The face that was followed so far, or the largest one."""
        if self._last is None or len(faces) < 2:
            return faces[0] if faces else None
        place = self._last.box
        return min(faces, key=lambda face: float(np.abs(face.box - place).sum()))


def track_face(
    path: str | Path, detector: FaceDetector, config: PrepareConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks float32 (T, 68, 2) px of the frame, interpolated where missing, and found bool (T,).

    Raises FaceError (too often no face, two faces, a jump) and VideoError (unreadable, too short).
    """
    info = probe(path)
    expected = max(1, round(info.duration * FPS))
    tracker = FaceTracker(detector, config.check_every)
    points: list[np.ndarray] = []
    found: list[bool] = []
    last: tuple[int, Face] | None = None
    for index, frame in enumerate(iter_frames(path)):
        face = tracker(frame)
        found.append(face is not None)
        points.append(face.landmarks if face is not None else np.full((68, 2), np.nan, np.float32))
        if face is not None:
            if last is not None:
                _check_jump(path, last, (index, face), config.max_jump)
            last = (index, face)
        # A long video without a face need not be searched to its end.
        if found.count(False) > config.max_missing * max(expected, config.min_frames, len(found)):
            break
    detected = np.array(found, dtype=bool)
    if len(detected) < config.min_frames and detected.any():
        raise VideoError(
            f"{path} lasts {len(detected) / FPS:.2f} s; a clip needs at least {config.min_frames / FPS:.2f} s"
        )
    if (~detected).sum() > config.max_missing * len(detected):
        first = int(np.flatnonzero(~detected)[0]) / FPS
        raise FaceError(
            f"{path} shows no face that can be found in too many of its frames (from {first:.1f} s on, say); "
            "use footage that shows one face, larger, from the front and all the time"
        )
    if tracker.rival_frames > config.max_rival * len(detected):
        raise FaceError(
            f"{path} shows two faces of similar size in {tracker.rival_frames} of {len(detected)} frames; "
            "cut the picture down to one person"
        )
    return interpolate_missing(np.stack(points), detected), detected


def _check_jump(path: str | Path, before: tuple[int, Face], now: tuple[int, Face], limit: float) -> None:
    steps = now[0] - before[0]
    old, new = (f.landmarks.mean(axis=0) for f in (before[1], now[1]))
    if np.linalg.norm(new - old) > limit * steps * max(before[1].size, now[1].size):
        raise FaceError(
            f"the face in {path} jumps at {now[0] / FPS:.2f} s (a cut, or another person); split the video there"
        )


def prepare_clip(
    path: str | Path,
    detector: FaceDetector,
    name: str,
    speaker: str,
    sentence: str,
    split: str,
    config: PrepareConfig | None = None,
) -> FrameClip:
    """Align one video. Raises VideoError, AudioError or FaceError, whose message is the reason for the rejection.

    The landmarks are found anew in each finished crop (as decoded from its JPEG), because that is what every measure
    does with generated frames; where that fails, detected is False and the frame's own landmarks are carried over.
    """
    path, config = Path(path), config or PrepareConfig()
    waveform = read_audio(path)  # first: it is quick, and a clip without sound is of no use
    landmarks, found = track_face(path, detector, config)
    frames = len(landmarks)
    if len(waveform.samples) < config.min_sound * samples_of_frames(frames):
        raise VideoError(
            f"the sound of {path} lasts {waveform.seconds:.2f} s and its pictures {frames / FPS:.2f} s; "
            "give a recording with sound to its end"
        )
    quads = smooth_quads(ffhq_quad(landmarks), config.sigma_centre, config.sigma_axes)
    jpegs = JpegFrames.encode(
        crop(frame, quad, config.size) for frame, quad in zip(iter_frames(path), quads, strict=True)
    )
    carried = np.stack([transform_points(p, q, config.size) for p, q in zip(landmarks, quads, strict=True)])
    points, detected = crop_landmarks(jpegs, detector, carried, found)
    return FrameClip(
        name=name,
        speaker=speaker,
        sentence=sentence,
        split=split,
        source=path.name,
        source_hash=file_hash(path),
        frames=jpegs,
        landmarks=points,
        quads=quads,
        detected=detected,
        waveform=_fitted(waveform, samples_of_frames(frames)),
    )


def crop_landmarks(
    frames: JpegFrames | np.ndarray, detector: FaceDetector, carried: np.ndarray, found: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks float32 (T, 68, 2) found in the crops themselves, and where that succeeded, bool (T,).

    Elsewhere: the landmarks carried over from the frame (T, 68, 2) where one was found (T,), else interpolated.
    """
    points, detected = carried.astype(np.float32).copy(), np.zeros(len(frames), dtype=bool)
    for index, picture in enumerate(frames):
        face = face_in_crop(detector, picture)
        if face is not None:
            points[index], detected[index] = face.landmarks, True
    return interpolate_missing(points, detected | np.asarray(found)), detected


def _fitted(waveform: Waveform, length: int) -> np.ndarray:
    """Exactly length samples: cut, or silence added at the end."""
    samples = waveform.samples[:length]
    return np.pad(samples, (0, length - len(samples))).astype(np.float32)


@dataclass(frozen=True, eq=False)
class AlignedPhoto:
    """crop uint8 (256, 256, 3); landmarks float32 (68, 2) px of the crop; quad float32 (4, 2) px of the photo."""

    crop: np.ndarray
    landmarks: np.ndarray
    quad: np.ndarray


def read_photo(path: str | Path) -> np.ndarray:
    """A picture file as uint8 (H, W, 3) RGB, turned as its EXIF tag says. Raises VideoError."""
    path = Path(path)
    if not path.is_file():
        raise VideoError(f"photo {path} does not exist; check the path")
    try:
        with Image.open(path) as picture:
            return np.array(upright_rgb(picture))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(
            f"{path} is not a picture that can be read ({error}); give a JPEG or PNG file"
        ) from error


def align_photo(
    image: np.ndarray, detector: FaceDetector, what: str | Path = "the photo", size: int = CROP_SIZE
) -> AlignedPhoto:
    """The FFHQ crop of the one face of image uint8 (H, W, 3). Raises FaceError for none, or for two."""
    face = single_face(detector(image), what)
    quad = ffhq_quad(face.landmarks)
    picture = crop(image, quad, size)
    again = face_in_crop(detector, picture)
    landmarks = again.landmarks if again is not None else transform_points(face.landmarks, quad, size)
    return AlignedPhoto(picture, landmarks, quad)
