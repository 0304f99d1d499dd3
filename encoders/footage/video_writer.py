"""Writes a video with its sound (PyAV): H.264 + AAC."""

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
_CODECS = ("libx264", "libopenh264", "mpeg4")  # PyAV's own wheels have the first; distribution builds may not


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    waveform: Waveform | None = None,
    fps: int = FPS,
    synthetic: bool = True,
    comment: str = "",
    crf: int = 17,
    preset: str = "medium",
) -> int:
    """Mux frames uint8 (H, W, 3) and the sound into an mp4, mov or mkv; returns the number of frames.

    The pictures decide: the sound is cut, or filled with silence, to n / fps seconds. An odd height or width grows
    by one repeated row or column (4:2:0 needs even sizes). The `comment` tag, which mp4 keeps, says that the video
    is synthetic unless synthetic is False. The file appears under its name only when it is complete.
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
    note = "; ".join(part for part in (SYNTHETIC if synthetic else "", comment) if part)
    with atomic_path(path) as temporary:
        options = {"movflags": "+faststart"} if _CONTAINERS[path.suffix.lower()] != "matroska" else {}
        try:
            container: Any = av.open(
                str(temporary), "w", format=_CONTAINERS[path.suffix.lower()], container_options=options
            )
        except av.error.FFmpegError as error:
            raise VideoError(
                f"{path} cannot be written ({reason(error)}); check the folder's permissions"
            ) from error
        with container:
            if note:
                container.metadata["comment"] = note
            video = _video_stream(container, first, fps, crf, preset)
            sound = (
                container.add_stream("aac", rate=waveform.rate, layout="mono")
                if waveform is not None
                else None
            )
            if sound is not None:
                sound.bit_rate = 96_000
            count = 0
            for image in chain([first], iterator):
                if image.shape != first.shape or image.dtype != np.uint8:
                    raise ValueError(
                        f"frame {count} is {image.dtype} {image.shape}, the first was {first.shape}"
                    )
                container.mux(video.encode(_picture(image, count, fps)))
                if sound is not None and waveform is not None:
                    container.mux(sound.encode(_sound(waveform, count, fps)))
                count += 1
            container.mux(video.encode(None))
            if sound is not None:
                container.mux(sound.encode(None))
    return count


def _video_stream(container: Any, first: np.ndarray, fps: int, crf: int, preset: str) -> Any:
    codec = next(name for name in _CODECS if name in av.codecs_available)
    options = {"crf": str(crf), "preset": preset} if codec == "libx264" else {}
    stream = container.add_stream(codec, rate=fps, options=options)
    stream.height, stream.width = (n + n % 2 for n in first.shape[:2])
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = Fraction(1, fps)
    # Say which matrix was used (BT.709), or readers have to guess it from the size.
    context.colorspace = context.color_primaries = context.color_trc = 1
    context.color_range = 1
    if codec == "mpeg4":
        stream.bit_rate = int(0.2 * stream.width * stream.height * fps)
    return stream


def _picture(image: np.ndarray, index: int, fps: int) -> Any:
    odd = [n % 2 for n in image.shape[:2]]
    if any(odd):
        image = np.pad(image, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
    )
    frame.pts, frame.time_base = index, Fraction(1, fps)
    return frame


def _sound(waveform: Waveform, index: int, fps: int) -> Any:
    """The samples of one picture, silence where the waveform has ended."""
    begin, end = (round(Fraction(k * waveform.rate, fps)) for k in (index, index + 1))
    samples = np.zeros((1, end - begin), np.float32)
    part = waveform.samples[begin:end]
    samples[0, : len(part)] = np.clip(part, -1.0, 1.0)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = waveform.rate, begin, Fraction(1, waveform.rate)
    return frame
