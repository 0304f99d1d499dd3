"""Read and write video with sound (PyAV): frames at 25 fps by their time stamps, 16 kHz mono, H.264 + AAC.

Time 0 is the first picture, for pictures and sound alike. Only one or two pictures are in memory at any moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import av.error
import numpy as np
from av.video.reformatter import Colorspace

from audio.timing import FPS
from audio.waveform import Waveform, to_mono16k

_NOT_VIDEO = {
    "tty",
    "image2",
    "jpeg_pipe",
    "png_pipe",
    "webp_pipe",
    "bmp_pipe",
}  # text drawn as pictures, and photos
X = TypeVar("X")


LONGEST_GAP = 600  # seconds without a picture or sound: beyond, a time stamp is broken


class VideoError(ValueError):
    """A video that cannot be read or written; the message names the file and what to do."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself: size in px as displayed, frames as declared (or estimated), duration in seconds.

    fps is the average rate, rotation the clockwise turn already contained in width and height (0, 90, 180, 270),
    start the first picture's time stamp in seconds.
    """

    width: int
    height: int
    fps: float
    frames: int
    duration: float
    rotation: int
    has_audio: bool
    start: Fraction = Fraction(0)


# ---------------------------------------------------------------------------------------------------- opening


def _check_boxes(path: Path) -> None:
    """Walk the top-level boxes of an MP4 or MOV file: VideoError if its index is missing or its end is cut off."""
    size, offset, seen = path.stat().st_size, 0, set()
    with path.open("rb") as file:
        while offset + 8 <= size and len(seen) < 64:
            file.seek(offset)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if not seen and kind not in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
                return  # another container
            seen.add(kind)
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            elif length == 0:
                length = size - offset
            if length < 8 or offset + length > size:
                raise VideoError(
                    f"{path} is cut off ({size} bytes, it should have more); copy or download it again"
                )
            offset += length
    if b"moov" not in seen and b"moof" not in seen:
        raise VideoError(f"{path} is cut off (its index, the moov box, is missing); copy or record it again")


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """The container, read only; VideoError for whatever is no readable video file."""
    path = Path(path)
    if not path.exists():
        raise VideoError(f"video file {path} does not exist; check the path")
    if path.is_dir():
        raise VideoError(f"{path} is a folder; give one video file")
    try:
        if path.stat().st_size == 0:
            raise VideoError(f"video file {path} is empty (0 bytes); copy or record it again")
        _check_boxes(path)
    except OSError as error:
        raise VideoError(
            f"{path} cannot be read ({error.strerror}); check its permissions and its disk"
        ) from error
    advice = "give an mp4, mov, mkv, avi or mpg file that a player can open"
    try:
        # An absolute path has no protocol prefix, and playlists must not reach for the network.
        container: Any = av.open(
            str(path.resolve()), metadata_errors="ignore", options={"protocol_whitelist": "file,crypto,data"}
        )
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(f"{path} is not a video file, or is damaged ({reason(error)}); {advice}") from error
    with container:
        if set(container.format.name.split(",")) & _NOT_VIDEO:
            raise VideoError(
                f"{path} is not a video file (it looks like {container.format.long_name}); {advice}"
            )
        yield container


def reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _picture_stream(container: Any, path: str | Path) -> Any:
    for stream in container.streams.video:
        if (
            not stream.disposition & stream.disposition.__class__.attached_pic
        ):  # an album cover is not a video
            stream.thread_type = "AUTO"
            return stream
    raise VideoError(f"{path} has no video stream; give a video file (a sound file goes to wav=)")


# ---------------------------------------------------------------------------------------------------- reading


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's frames; a packet that cannot be decoded gives None, so that the caller can count it."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
        except av.error.FFmpegError:
            yield None
            return
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            yield None


def _timed_pictures(container: Any, path: str | Path) -> Iterator[tuple[Fraction, Fraction, Any]]:
    """(time stamp, duration, picture), times in seconds and rising; VideoError if the file ends too early."""
    stream = _picture_stream(container, path)
    usual = 1 / Fraction(stream.average_rate or stream.guessed_rate or FPS)
    base = Fraction(stream.time_base or 0)
    count, bad, time, end = 0, 0, None, Fraction(0)
    for frame in _decoded(container, stream):
        if frame is None:
            bad += 1
            continue
        before, count = time, count + 1
        stamp = (
            frame.pts * base
            if frame.pts is not None
            else (before + usual if before is not None else Fraction(0))
        )
        if before is not None and stamp <= before:
            continue  # shown at a moment that has passed: a repeated or broken time stamp
        if before is not None and stamp - before > LONGEST_GAP:
            raise VideoError(
                f"{path} shows no picture for {float(stamp - before):.0f} s after the first {float(before):.0f} s; cut or "
                "convert it first"
            )
        time = stamp
        length = (frame.duration or 0) * base or usual
        end = time + length
        yield time, length, frame
    if count == 0:
        raise VideoError(
            f"{path} has a video stream, but no frame of it can be decoded; convert it to H.264 first"
        )
    promised = stream.frames
    declared_end = ((stream.start_time or 0) + stream.duration) * base if stream.duration else end
    # Edit lists hide frames that the header still counts, so a low count alone proves nothing.
    if promised and count < promised and (bad or end + 2 * usual < declared_end):
        raise VideoError(
            f"{path} is damaged or cut short: {count} of its {promised} frames can be read; copy or convert it again"
        )


def nearest_in_time(timed: Iterable[tuple[Fraction, Fraction, X]], fps: int = FPS) -> Iterator[X]:
    """Items with (time, duration) in seconds, rising -> for each k / fps the item nearest in time, the earlier on a tie.

    The first item's time counts as 0; the output has round(total duration * fps) items, and at least one.
    """
    start = before = duration = None
    item: Any = None
    k = 0
    for time, length, new in timed:
        start = time if start is None else start
        if before is not None:
            while Fraction(2 * k, fps) <= before + time - 2 * start:
                yield item
                k += 1
        before, item, duration = time, new, length
    if start is None or before is None or duration is None:
        return
    total = max(1, int((before + duration - start) * fps + Fraction(1, 2)))
    while k < total:
        yield item
        k += 1


class _Converter:
    """Decoded pictures -> uint8 (H, W, 3) RGB: square pixels, turned upright, all of the first one's size."""

    def __init__(self, first: Any, aspect: Fraction | None) -> None:
        self.turns = round((first.rotation or 0) / 90) % 4  # counterclockwise quarters, as np.rot90 counts
        self.height = first.height
        self.width = max(1, round(first.width * (aspect or 1)))
        # Without a label, players take HD for BT.709 and SD for BT.601.
        unlabelled_hd = int(first.colorspace) in (0, 2) and first.height >= 720 and "yuv" in first.format.name
        self.matrix = Colorspace.ITU709 if unlabelled_hd else None

    def __call__(self, frame: Any) -> np.ndarray:
        image = frame.to_ndarray(
            format="rgb24", width=self.width, height=self.height, src_colorspace=self.matrix, threads=1
        )
        return np.ascontiguousarray(np.rot90(image, self.turns) if self.turns else image)


def probe(path: str | Path) -> VideoInfo:
    """What the file holds, from its header and its first picture. Raises VideoError."""
    with _opened(path) as container:
        stream = _picture_stream(container, path)
        time, _, first = next(_timed_pictures(container, path))
        convert = _Converter(first, stream.sample_aspect_ratio)
        rate = Fraction(stream.average_rate or stream.guessed_rate or FPS)
        if stream.duration:
            duration = float(stream.duration * stream.time_base)
        else:
            duration = float(container.duration or 0) / av.time_base
        turned = convert.turns % 2 == 1
        return VideoInfo(
            width=convert.height if turned else convert.width,
            height=convert.width if turned else convert.height,
            fps=float(rate),
            frames=stream.frames or round(duration * rate),
            duration=duration,
            rotation=(-90 * convert.turns) % 360,
            has_audio=len(container.streams.audio) > 0,
            start=time,
        )


def iter_frames(path: str | Path, fps: int = FPS) -> Iterator[np.ndarray]:
    """uint8 (H, W, 3) RGB, C-contiguous, upright, one for each time k / fps: the picture nearest in time.

    Raises VideoError, also at the end, when fewer pictures came than the file declares. Pictures that are shown
    twice are equal arrays, but not the same one.
    """
    with _opened(path) as container:
        aspect = _picture_stream(container, path).sample_aspect_ratio
        convert = None
        for frame in nearest_in_time(_timed_pictures(container, path), fps):
            convert = convert or _Converter(frame, aspect)
            yield convert(frame)


def read_audio(path: str | Path) -> Waveform:
    """The sound of a video as 16 kHz mono, sample 0 at the first picture.

    Encoder priming, a late or early start and gaps follow the time stamps; the length is the sound's own.
    Raises VideoError (no audio track, unreadable) and AudioError (too short, not finite).
    """
    with _opened(path) as container:
        if not container.streams.audio:
            raise VideoError(
                f"{path} has no audio track; use a recording with sound, or give the sound as a wav file"
            )
        has_pictures = any(
            not s.disposition & s.disposition.__class__.attached_pic for s in container.streams.video
        )
    start = probe(path).start if has_pictures else None

    with _opened(path) as container:
        stream = container.streams.audio[0]
        base, rate, length, blocks = Fraction(stream.time_base), 0, 0, []
        for frame in _decoded(container, stream):
            if frame is None:
                continue
            rate = rate or frame.sample_rate
            if frame.sample_rate != rate:
                raise VideoError(
                    f"the audio track of {path} changes its sampling rate; convert it to one rate first"
                )
            stamp = frame.pts * base if frame.pts is not None else None
            if start is None:
                start = stamp or Fraction(0)
            block = _mono(frame)
            gap = round((stamp - start) * rate) - length if stamp is not None else 0
            # Coarse time bases round by a millisecond; only a real gap or overlap, or the very start, is followed.
            if not blocks or abs(gap) > 0.04 * rate:
                if gap > LONGEST_GAP * rate:
                    raise VideoError(
                        f"the audio track of {path} has a gap of {gap // rate} s; convert it first"
                    )
                block = np.concatenate([np.zeros(gap, np.float32), block]) if gap > 0 else block[-gap:]
            if len(block):
                blocks.append(block)
                length += len(block)
        if not blocks:
            raise VideoError(
                f"the audio track of {path} holds no sound that can be decoded; export the video again"
            )
        if stream.duration and start is not None:
            # The last packet is filled up to a whole block; the header knows where the sound ends.
            end = round((((stream.start_time or 0) + stream.duration) * base - start) * rate)
            length = end if 0 < length - end <= 4096 else length
    return to_mono16k(np.concatenate(blocks)[:length], rate, name=f"the sound of {path}")


def _mono(frame: Any) -> np.ndarray:
    """Decoded sound of any sample format -> float32 (S,), channels averaged."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128.0) / 128.0
    elif np.issubdtype(samples.dtype, np.signedinteger):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32).mean(axis=0)
