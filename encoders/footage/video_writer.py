"""Writes a video with its sound (PyAV): H.264 + AAC, marked as synthetic in the file's comment."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from audio.timing import FPS
from audio.waveform import Waveform
from encoders.footage.video_reader import VideoError, reason
from stylegan2.weights import atomic_path

SYNTHETIC = "synthetic: this talking head is generated, it is not a recording"
_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_CODECS = ("libx264", "libopenh264", "mpeg4")  # PyAV's wheels contain the first; other builds may not


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    waveform: Waveform | None = None,
    fps: int | Fraction = FPS,
    synthetic: bool = True,
    comment: str = "",
    crf: int = 17,
    preset: str = "medium",
) -> int:
    """Writes frames uint8 (H, W, 3) and the sound to an mp4, m4v, mov or mkv; returns the number of frames.

    The sound is cut, or padded with silence, to the duration of the frames. An odd height or width is extended by
    repeating the last row or column, because 4:2:0 needs even sizes. The `comment` tag says that the video is synthetic
    unless synthetic is False. crf and preset are x264's: constant rate factor (lower is better) and encoding speed. The
    file appears only when it is complete. Raises VideoError.
    """
    path = Path(path)
    if path.suffix.lower() not in _CONTAINERS:
        raise VideoError(f"{path} cannot be written: the name must end in one of {', '.join(_CONTAINERS)}")
    if path.is_dir():
        raise VideoError(f"{path} is a folder; give the name of the video file to write")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise VideoError(f"{path} was not written: there is no frame to write")
    with atomic_path(path) as temporary, _new_container(path, temporary) as container:
        if note := "; ".join(part for part in (SYNTHETIC if synthetic else "", comment) if part):
            container.metadata["comment"] = note
        video = video_stream(container, first, fps, crf, preset)
        sound: Any = None
        if waveform is not None:
            sound = sound_stream(container, waveform.rate)
        # Encode each frame together with its samples, so that both streams are interleaved in the file.
        count = 0
        for image in chain([first], iterator):
            if image.shape != first.shape or image.dtype != np.uint8:
                raise ValueError(f"frame {count} is {image.dtype} {image.shape}, the first was {first.shape}")
            container.mux(video.encode(video_frame(image, count, fps)))
            if waveform is not None:
                begin, end = (round(Fraction(k * waveform.rate, fps)) for k in (count, count + 1))
                samples = waveform.samples[begin:end]
                samples = np.pad(
                    samples, (0, end - begin - len(samples))
                )  # silence where the sound has ended
                container.mux(sound.encode(audio_frame(samples, begin, waveform.rate)))
            count += 1
        # Flush the encoders.
        container.mux(video.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    return count


def _new_container(path: Path, temporary: Path) -> Any:
    """The container of `path`, written under a temporary name."""
    kind = _CONTAINERS[path.suffix.lower()]
    options = {"movflags": "+faststart"} if kind != "matroska" else {}
    try:
        return av.open(str(temporary), "w", format=kind, container_options=options)
    except av.error.FFmpegError as error:
        raise VideoError(
            f"{path} cannot be written ({reason(error)}); check the folder's permissions"
        ) from error


def video_stream(
    container: Any, first: np.ndarray, fps: int | Fraction, crf: int, preset: str, **x264: str
) -> Any:
    """A new stream for frames of the size of `first`. x264: further options of that encoder."""
    codec = next(name for name in _CODECS if name in av.codecs_available)
    options = {"crf": str(crf), "preset": preset, **x264} if codec == "libx264" else {}
    stream = container.add_stream(codec, rate=fps, options=options)
    stream.height, stream.width = (n + n % 2 for n in first.shape[:2])
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = Fraction(1, fps)
    # Label the colours as BT.709, limited range; without a label players guess the colour matrix from the size.
    context.colorspace = context.color_primaries = context.color_trc = 1
    context.color_range = 1
    if codec == "mpeg4":
        stream.bit_rate = int(0.2 * stream.width * stream.height * fps)
    return stream


def sound_stream(container: Any, rate: int) -> Any:
    """A new AAC stream, mono."""
    stream = container.add_stream("aac", rate=rate, layout="mono")
    stream.bit_rate = 96_000
    return stream


def video_frame(image: np.ndarray, index: int, fps: int | Fraction) -> Any:
    """uint8 (H, W, 3) -> the frame with number `index`."""
    odd = [n % 2 for n in image.shape[:2]]
    if any(odd):
        image = np.pad(image, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
    )
    frame.pts, frame.time_base = index, Fraction(1, fps)
    return frame


def audio_frame(samples: np.ndarray, begin: int, rate: int) -> Any:
    """Samples float32 (S,), clipped to [-1, 1], of which the first has the number `begin`."""
    clipped = np.clip(samples, -1.0, 1.0)[None]
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(clipped), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
    return frame
