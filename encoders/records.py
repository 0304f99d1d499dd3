"""The records between the stages, and their files: FrameClip, LatentClip, and the manifest that lists them.

A record is one safetensors file. Frames lie in it as JPEGs (quality 98, 4:4:4) end to end with their offsets, so one
frame is decoded without the others. Shape legend: T frames, L rows of W+, D = 512, S samples.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from audio.timing import FPS, RATE
from stylegan2.weights import atomic_path

SPLITS = ("train", "val", "seen", "unseen")
JPEG_QUALITY = 98


class ClipError(ValueError):
    """A clip, latent or manifest file that is missing, of another kind, cut short or inconsistent."""


def keyed_fields(record: Any) -> dict[str, Any]:
    """A dataclass' values, without fields of the metadata {"keyed": False}: those do not change what is made."""
    fields = dataclasses.fields(record)
    return {field.name: getattr(record, field.name) for field in fields if field.metadata.get("keyed", True)}


def content_hash(*parts: Any) -> str:
    """sha256 hex of the parts: bytes, text, numbers, None, arrays, dataclasses, and lists and dicts of these.

    Types and lengths are part of it, so ("ab", "c") and ("a", "bc") differ. A path is refused: hash what it holds.
    Of a dataclass, its `keyed_fields`.
    """
    digest = hashlib.sha256()

    def add(tag: str, data: bytes) -> None:
        digest.update(f"{tag}:{len(data)}:".encode())
        digest.update(data)

    def visit(part: Any) -> None:
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            add("record", type(part).__name__.encode())
            part = keyed_fields(part)
        if isinstance(part, (bytes, bytearray, memoryview)):
            add("bytes", bytes(part))
        elif isinstance(part, np.ndarray):
            add(f"array {part.dtype.str} {part.shape}", np.ascontiguousarray(part).tobytes())
        elif part is None or isinstance(part, (str, bool, int, float, np.generic)):
            plain = part.item() if isinstance(part, np.generic) else part
            add(type(plain).__name__, repr(plain).encode())
        elif isinstance(part, dict):
            add("dict", str(len(part)).encode())
            for key in sorted(part, key=repr):
                visit(key)
                visit(part[key])
        elif isinstance(part, (list, tuple)):
            add("list", str(len(part)).encode())
            for item in part:
                visit(item)
        else:
            raise TypeError(f"content_hash does not take {type(part).__name__}")

    visit(parts)
    return digest.hexdigest()


class JpegFrames:
    """T frames uint8 (size, size, 3), decoded when asked for; indexes, iterates and converts like the array."""

    def __init__(self, data: np.ndarray, offsets: np.ndarray) -> None:
        """data uint8 (bytes,): the JPEGs end to end; offsets int64 (T + 1,). ClipError if they do not fit."""
        if data.dtype != np.uint8 or data.ndim != 1 or offsets.dtype != np.int64 or offsets.ndim != 1:
            raise ClipError(
                f"frames are uint8 bytes with int64 offsets, got {data.dtype} and {offsets.dtype}"
            )
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) <= 0).any():
            raise ClipError("the frame offsets do not fit the frame data; the file is damaged, make it again")
        self.data, self.offsets = data, offsets
        with self._opened(0) as first:
            self.size = first.width

    @classmethod
    def encode(cls, frames: Iterable[np.ndarray]) -> JpegFrames:
        """From uint8 (size, size, 3) arrays, one at a time."""
        blobs = []
        for frame in frames:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
            blobs.append(buffer.getvalue())
        offsets = np.cumsum([0, *map(len, blobs)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(blobs), dtype=np.uint8), offsets)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self), self.size, self.size, 3)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def _opened(self, index: int) -> Image.Image:
        try:
            blob = self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()
            return Image.open(io.BytesIO(blob), formats=["JPEG"])
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise ClipError(f"frame {index} is no JPEG; the clip file is damaged, make it again") from error

    def _frame(self, index: int) -> np.ndarray:
        with self._opened(index) as picture:
            if picture.size != (self.size, self.size) or picture.mode != "RGB":
                raise ClipError(
                    f"frame {index} is {picture.mode} {picture.size}, expected RGB {self.size} x {self.size}"
                )
            try:
                return np.array(picture)
            except (OSError, ValueError) as error:
                raise ClipError(
                    f"frame {index} cannot be decoded; the clip file is damaged, make it again"
                ) from error

    def __getitem__(self, index: Any) -> np.ndarray:
        chosen = np.arange(len(self))[index]
        if np.ndim(chosen) == 0:
            return self._frame(int(chosen))
        if len(chosen) == 0:
            return np.empty((0, *self.shape[1:]), np.uint8)
        return np.stack([self._frame(int(i)) for i in chosen])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._frame(i) for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("frames are decoded, so an array of them is always new")
        return self[:] if dtype is None else self[:].astype(dtype)


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
        _check_split(self.name, self.split)
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
        _check_split(self.name, self.split)
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


def _check_split(name: str, split: str) -> None:
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


# --------------------------------------------------------------------------------------------------- manifest


@dataclass(frozen=True)
class ClipEntry:
    """One line of the manifest; file is relative to it and empty for a rejected clip, whose reason says why."""

    name: str
    file: str
    speaker: str
    sentence: str
    split: str
    n_frames: int
    status: str = "ok"
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status not in ("ok", "rejected"):
            raise ClipError(f"clip {self.name} has the status {self.status!r}, expected 'ok' or 'rejected'")
        if not isinstance(self.n_frames, int) or self.n_frames < 0:
            raise ClipError(f"clip {self.name} has {self.n_frames!r} frames, expected a whole number")
        inside = PurePosixPath(self.file)
        if inside.is_absolute() or ".." in inside.parts or (self.status == "ok" and not self.file):
            raise ClipError(f"clip {self.name}: {self.file!r} is not a file beside the manifest")
        _check_split(self.name, self.split)


@dataclass(frozen=True)
class Manifest:
    """What a folder of clips holds, rejected clips with their reasons included; notes: anything else, JSON."""

    clips: tuple[ClipEntry, ...]
    notes: dict[str, Any] = field(default_factory=dict)

    def ok(self, *splits: str) -> list[ClipEntry]:
        """The usable clips, of the given splits only if any are given."""
        return [clip for clip in self.clips if clip.status == "ok" and (not splits or clip.split in splits)]

    def rejected(self) -> list[ClipEntry]:
        return [clip for clip in self.clips if clip.status == "rejected"]


def _manifest_path(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".json" else path / "manifest.json"


def write_manifest(path: str | Path, manifest: Manifest) -> Path:
    """path: the folder or the .json file; returns the file."""
    path = _manifest_path(path)
    content = {**manifest.notes, "clips": [dataclasses.asdict(clip) for clip in manifest.clips]}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_manifest(path: str | Path) -> Manifest:
    """path: the folder or the .json file. Raises ClipError."""
    path = _manifest_path(path)
    if not path.is_file():
        raise ClipError(f"there is no manifest {path}; run the stage that makes this folder first")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        clips = tuple(ClipEntry(**entry) for entry in content.pop("clips"))
    except ClipError as error:
        raise ClipError(f"manifest {path}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ClipError(
            f"manifest {path} is damaged or of another kind ({error}); make the folder again"
        ) from error
    return Manifest(clips, content)
