"""The records that stages pass on: FrameClip (aligned frames with their sound) and LatentClip (the same clip in W+).

Each record is one safetensors file. Shapes: T frames, L rows of W+, D = 512, S audio samples.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from audio.timing import FPS, RATE
from encoders.content_hash import content_hash
from encoders.jpeg_frames import ClipError, JpegFrames
from stylegan2.weights import atomic_path

SPLITS = ("train", "val", "seen", "unseen")


@dataclass(frozen=True, eq=False)
class FrameClip:
    """Aligned frames of one person speaking. Raises ClipError for arrays of other shapes, types or lengths."""

    name: str
    speaker: str
    sentence: str
    split: str
    source: str  # file name of the video
    source_hash: str  # sha256 of that file
    frames: np.ndarray | JpegFrames  # uint8 (T, 256, 256, 3) RGB
    landmarks: np.ndarray  # float32 (T, 68, 2), px of the crop
    quads: np.ndarray  # float32 (T, 4, 2), the crop's corners in px of the source frame (footage/align.py)
    detected: np.ndarray  # bool (T,); False: no face in the crop, so the landmarks are the source frame's
    waveform: np.ndarray  # float32 (S,) at 16 kHz, S = 640 T
    fps: int = FPS
    # What was done to the decoded video: deinterlaced, tone-mapped, turned, and which of its sound tracks was taken
    reading: str = ""
    sound_shift: int = 0  # samples by which the sound was moved to fit the picture; positive: earlier

    def __post_init__(self) -> None:
        frames = len(self.frames)
        size = self.frames.shape[1]
        if self.fps != FPS:
            raise ClipError(f"clip {self.name} has {self.fps} frames per second, expected {FPS}")
        check_split(self.name, self.split)
        _check_array(self.name, "frames", self.frames, np.uint8, (frames, size, size, 3))
        _check_array(self.name, "landmarks", self.landmarks, np.float32, (frames, 68, 2))
        _check_array(self.name, "quads", self.quads, np.float32, (frames, 4, 2))
        _check_array(self.name, "detected", self.detected, np.bool_, (frames,))
        _check_array(self.name, "waveform", self.waveform, np.float32, (frames * RATE // FPS,))

    def __len__(self) -> int:
        return len(self.frames)

    def _jpegs(self) -> JpegFrames:
        return self.frames if isinstance(self.frames, JpegFrames) else JpegFrames.encode(self.frames)

    def content_hash(self) -> str:
        """Hash of the frames as stored, the landmarks and the sound; names and quads are not included."""
        jpegs = self._jpegs()
        return content_hash(jpegs.data, jpegs.offsets, self.landmarks, self.detected, self.waveform)

    def save(self, path: str | Path) -> None:
        jpegs = self._jpegs()
        tensors = {"jpeg": jpegs.data, "offsets": jpegs.offsets}
        tensors |= {key: getattr(self, key) for key in ("landmarks", "quads", "detected", "waveform")}
        _save(path, "frame-clip", self, tensors)

    @classmethod
    def load(cls, path: str | Path) -> FrameClip:
        """Raises ClipError."""
        names = ("jpeg", "offsets", "landmarks", "quads", "detected", "waveform")
        tensors, fields = _load(path, "frame-clip", names)
        with _errors_name(path):
            frames = JpegFrames(tensors.pop("jpeg"), tensors.pop("offsets"))
            return cls(frames=frames, **tensors, **fields)


@dataclass(frozen=True, eq=False)
class LatentClip:
    """The W+ codes of a FrameClip. Raises ClipError for arrays of other shapes or types."""

    name: str
    speaker: str
    sentence: str
    split: str
    w: np.ndarray  # float16 (T, L, D)
    w_ref: np.ndarray  # float32 (L, D), the code of the identity frame
    ref_index: int  # which frame is the identity frame
    clip_hash: str  # FrameClip.content_hash() of the inverted clip
    generator_hash: str  # sha256 of the generator's weight file
    encoder_hash: str  # sha256 of the encoder's weight file

    def __post_init__(self) -> None:
        check_split(self.name, self.split)
        if self.w.ndim != 3:
            raise ClipError(f"clip {self.name}: w must be (T, L, D), got {self.w.shape}")
        _check_array(self.name, "w", self.w, np.float16, self.w.shape)
        _check_array(self.name, "w_ref", self.w_ref, np.float32, self.w.shape[1:])
        if not 0 <= self.ref_index < len(self.w):
            raise ClipError(
                f"clip {self.name}: identity frame {self.ref_index} is not one of its {len(self.w)} frames"
            )

    def __len__(self) -> int:
        return len(self.w)

    def save(self, path: str | Path) -> None:
        _save(path, "latent-clip", self, {"w": self.w, "w_ref": self.w_ref})

    @classmethod
    def load(cls, path: str | Path) -> LatentClip:
        """Raises ClipError."""
        tensors, fields = _load(path, "latent-clip", ("w", "w_ref"))
        with _errors_name(path):
            return cls(**tensors, **fields)


def check_split(name: str, split: str) -> None:
    if split not in SPLITS:
        raise ClipError(f"clip {name} has the split {split!r}, expected one of {', '.join(SPLITS)}")


def _check_array(name: str, what: str, array: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape or 0 in shape:
        expected = f"{np.dtype(dtype)} {shape}"
        raise ClipError(
            f"clip {name}: {what} must be {expected} and not empty, got {array.dtype} {array.shape}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ClipError(f"clip {name}: {what} holds values that are not finite")


@contextlib.contextmanager
def _errors_name(path: str | Path) -> Iterator[None]:
    """Adds the file's name to errors about its content; TypeError: unknown fields, or text in place of a number."""
    try:
        yield
    except (ClipError, TypeError) as error:
        raise ClipError(f"{path} is not usable: {error}") from error


def _save(path: str | Path, kind: str, record: Any, tensors: dict[str, np.ndarray]) -> None:
    values = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    plain = {key: value for key, value in values.items() if isinstance(value, (str, int))}
    # One metadata key: safetensors writes several in arbitrary order, and equal clips should be equal files.
    metadata = {"record": json.dumps({"kind": kind, **plain}, sort_keys=True)}
    with atomic_path(path) as temporary:
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, temporary, metadata)


def _load(
    path: str | Path, kind: str, names: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The named tensors, and the record's fields of text and numbers."""
    path = Path(path)
    if not path.is_file():
        raise ClipError(f"there is no file {path}; check the path, or make it with the stage before")
    try:
        with safe_open(path, framework="numpy") as file:
            fields = json.loads((file.metadata() or {}).get("record", "null"))
            if not isinstance(fields, dict) or fields.pop("kind", None) != kind:
                raise ClipError(
                    f"{path} is a safetensors file, but no {kind}; give a file of the right stage"
                )
            if missing := set(names) - set(file.keys()):
                raise ClipError(f"{path} lacks {', '.join(sorted(missing))}; make it again")
            tensors = {key: file.get_tensor(key) for key in names}
    except ClipError:
        raise
    except (SafetensorError, OSError, ValueError, RecursionError, TypeError) as error:
        raise ClipError(f"{path} is no {kind} file, or is cut short ({error}); make it again") from error
    if not all(isinstance(value, (str, int)) for value in fields.values()):
        raise ClipError(f"{path} has a record that is not plain text and numbers; make it again")
    return tensors, fields
