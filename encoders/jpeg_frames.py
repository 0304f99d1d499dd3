"""The frames of a clip, stored as JPEGs so that single frames can be read without decoding the others."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

JPEG_QUALITY = 98  # stored with full chroma resolution (4:4:4)


class ClipError(ValueError):
    """A clip, latent or manifest file is missing, of another kind, cut short or inconsistent."""


class JpegFrames:
    """T square RGB frames, uint8 (T, size, size, 3); indexing, iterating and np.asarray decode only the requested
    frames.
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray) -> None:
        """data: uint8 (bytes,), all JPEGs one after another; offsets: int64 (T + 1,), where each begins and ends.

        Raises ClipError if the two do not fit together.
        """
        if data.dtype != np.uint8 or data.ndim != 1 or offsets.dtype != np.int64 or offsets.ndim != 1:
            raise ClipError(
                f"frames are uint8 bytes with int64 offsets, got {data.dtype} and {offsets.dtype}"
            )
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) <= 0).any():
            raise ClipError("the frame offsets do not fit the frame data; the file is damaged, make it again")
        self.data, self.offsets = data, offsets
        with self._open(0) as first:
            self.size = first.width

    @classmethod
    def encode(cls, frames: Iterable[np.ndarray]) -> JpegFrames:
        """Encodes uint8 (size, size, 3) arrays one at a time."""
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

    def _open(self, index: int) -> Image.Image:
        try:
            blob = self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()
            return Image.open(io.BytesIO(blob), formats=["JPEG"])
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise ClipError(f"frame {index} is no JPEG; the clip file is damaged, make it again") from error

    def _decode(self, index: int) -> np.ndarray:
        with self._open(index) as image:
            if image.size != (self.size, self.size) or image.mode != "RGB":
                raise ClipError(
                    f"frame {index} is {image.mode} {image.size}, expected RGB {self.size} x {self.size}"
                )
            try:
                return np.array(image)
            except (OSError, ValueError) as error:
                raise ClipError(
                    f"frame {index} cannot be decoded; the clip file is damaged, make it again"
                ) from error

    def __getitem__(self, index: Any) -> np.ndarray:
        chosen = np.arange(len(self))[index]
        if np.ndim(chosen) == 0:
            return self._decode(int(chosen))
        if len(chosen) == 0:
            return np.empty((0, *self.shape[1:]), np.uint8)
        return np.stack([self._decode(int(i)) for i in chosen])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._decode(i) for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("decoded frames are always a new array")
        return self[:] if dtype is None else self[:].astype(dtype)
