"""A video that is watched while it is written: a fragmented mp4 with sound, or raw frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import av
import numpy as np

from audio.timing import FPS, RATE, SAMPLES_PER_FRAME
from encoders.footage.video_writer import (
    SYNTHETIC,
    audio_frame,
    sound_stream,
    video_frame,
    video_stream,
)

# A fragment is written for each frame, two frames later, and no packet waits for the other stream's. (Of the flag
# frag_every_frame, players understand the durations wrongly.)
FRAGMENTS = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "frag_duration": "40000",  # microseconds
    "max_interleave_delta": "1",
}
CRF, PRESET = 20, "veryfast"
KEY_EVERY = "25"  # frames from one key frame to the next, at which players can begin


@dataclass
class StreamConfig:
    """The output of stream.py."""

    # mp4: fragmented, H.264 and AAC, marked as synthetic in its metadata. raw: rgb24 frames one after another, without
    # sound.
    format: Literal["mp4", "raw"] = "mp4"


class LiveVideo:
    """Writes frames of 25 fps with their sound to an open file, each as soon as it is given. A context manager: its end
    completes the video, unless the file could not be written to.
    """

    def __init__(self, file: BinaryIO, format: Literal["mp4", "raw"]) -> None:
        self.frames = 0
        self._file, self._format = file, format
        self._error: BaseException | None = None  # of writing to the file
        self._container: Any = None
        self._picture: Any = None
        self._sound: Any = None

    def __enter__(self) -> LiveVideo:
        return self

    def __exit__(self, *error: object) -> None:
        container: Any = self._container
        if container is None or self._error:  # what follows would not fit to what was written
            return
        for stream in (self._picture, self._sound):
            container.mux(stream.encode(None))
        container.close()

    def add(self, image: np.ndarray, samples: np.ndarray) -> None:
        """image: uint8 (H, W, 3), H and W even for raw frames; samples: float32 (640,). Waits until the reader takes them."""
        try:
            if self._format == "raw":
                self.write(np.ascontiguousarray(image).tobytes())
            else:
                self._add_to_mp4(image, samples)
        except Exception:
            if self._error:
                raise self._error from None
            raise
        self.frames += 1

    def _add_to_mp4(self, image: np.ndarray, samples: np.ndarray) -> None:
        if self._container is None:
            self._open(image)
        container: Any = self._container
        container.mux(self._picture.encode(video_frame(image, self.frames, FPS)))
        begin = self.frames * SAMPLES_PER_FRAME
        container.mux(self._sound.encode(audio_frame(samples, begin, RATE)))

    def write(self, data: bytes) -> int:
        """Called by the container too, for which this object is the file. PyAV passes on subclasses of Exception alone and
        ends the process at others, such as those of signals.
        """
        try:
            self._file.write(data)
            self._file.flush()
        except BaseException as error:
            self._error = error
            raise OSError("the video cannot be written") from error
        return len(data)

    def _open(self, first: np.ndarray) -> None:
        self._container = av.open(self, "w", format="mp4", container_options=FRAGMENTS)
        self._container.metadata["comment"] = SYNTHETIC
        options = {"tune": "zerolatency", "g": KEY_EVERY}
        self._picture = video_stream(self._container, first, FPS, CRF, PRESET, **options)
        self._picture.codec_context.thread_count = 1  # the cores are needed for rendering
        self._sound = sound_stream(self._container, RATE)
