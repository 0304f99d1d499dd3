"""The records between the stages, and their files: FrameClip, LatentClip, and the manifest that lists them.

A record is one safetensors file. Frames lie in it as JPEGs (quality 98, 4:4:4) end to end with their offsets, so one
frame is decoded without the others. Shape legend: T frames, L rows of W+, D = 512, S samples.
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
    """Aligned frames of one person speaking.

    frames uint8 (T, 256, 256, 3) RGB, an array or JpegFrames; landmarks float32 (T, 68, 2) px of the crop;
    quads float32 (T, 4, 2) px of the source frame (encoders/footage/align.py); detected bool (T,): False where no face was
    found in the crop and the landmarks are carried over; waveform float32 (S,), 16 kHz, S = 640 T.
    """

    name: str
    speaker: str
    sentence: str
    split: str
    source: str
    source_hash: str
    frames: np.ndarray | JpegFrames
    landmarks: np.ndarray
    quads: np.ndarray
    detected: np.ndarray
    waveform: np.ndarray
    fps: int = FPS

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
        """Of pictures, landmarks and sound as they are on disk; the clip's name and place do not count."""
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
        tensors, record = _load(
            path, "frame-clip", ("jpeg", "offsets", "landmarks", "quads", "detected", "waveform")
        )
        with _naming(path):
            frames = JpegFrames(tensors.pop("jpeg"), tensors.pop("offsets"))
            return cls(frames=frames, **tensors, **record)


@dataclass(frozen=True, eq=False)
class LatentClip:
    """The same clip in W+: w float16 (T, L, D); w_ref float32 (L, D), the latent of the identity frame ref_index.

    The hashes say what it was made of: FrameClip.content_hash(), and the weight files of generator and encoder.
    """

    name: str
    speaker: str
    sentence: str
    split: str
    w: np.ndarray
    w_ref: np.ndarray
    ref_index: int
    clip_hash: str
    generator_hash: str
    encoder_hash: str

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
        tensors, record = _load(path, "latent-clip", ("w", "w_ref"))
        with _naming(path):
            return cls(**tensors, **record)


def check_split(name: str, split: str) -> None:
    if split not in SPLITS:
        raise ClipError(f"clip {name} has the split {split!r}, expected one of {', '.join(SPLITS)}")


def _check_array(name: str, what: str, array: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape or 0 in shape:
        wanted = f"{np.dtype(dtype)} {shape}"
        raise ClipError(
            f"clip {name}: {what} must be {wanted} and not empty, got {array.dtype} {array.shape}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ClipError(f"clip {name}: {what} holds values that are not finite")


@contextlib.contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Name the file in whatever its content does not fit; TypeError: a record with other fields, or text for a number."""
    try:
        yield
    except (ClipError, TypeError) as error:
        raise ClipError(f"{path} is not usable: {error}") from error


def _save(path: str | Path, kind: str, record: Any, tensors: dict[str, np.ndarray]) -> None:
    texts = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    texts = {key: value for key, value in texts.items() if isinstance(value, (str, int))}
    # One metadata key: safetensors writes several in arbitrary order, and equal clips should be equal files.
    metadata = {"record": json.dumps({"kind": kind, **texts}, sort_keys=True)}
    with atomic_path(path) as temporary:
        save_file(
            {key: np.ascontiguousarray(value) for key, value in tensors.items()}, temporary, metadata=metadata
        )


def _load(
    path: str | Path, kind: str, names: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    path = Path(path)
    if not path.is_file():
        raise ClipError(f"there is no file {path}; check the path, or make it with the stage before")
    try:
        with safe_open(path, framework="numpy") as file:
            record = json.loads((file.metadata() or {}).get("record", "null"))
            if not isinstance(record, dict) or record.pop("kind", None) != kind:
                raise ClipError(
                    f"{path} is a safetensors file, but no {kind}; give a file of the right stage"
                )
            missing = set(names) - set(file.keys())
            if missing:
                raise ClipError(f"{path} lacks {', '.join(sorted(missing))}; make it again")
            tensors = {key: file.get_tensor(key) for key in names}
    except (
        SafetensorError,
        OSError,
        json.JSONDecodeError,
        UnicodeDecodeError,
        RecursionError,
        TypeError,
    ) as error:
        raise ClipError(f"{path} is no {kind} file, or is cut short ({error}); make it again") from error
    if not all(isinstance(value, (str, int)) for value in record.values()):
        raise ClipError(f"{path} has a record that is not plain text and numbers; make it again")
    return tensors, record
