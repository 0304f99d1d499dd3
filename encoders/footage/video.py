"""Read and write video with sound (PyAV): frames at 25 fps by their time stamps, 16 kHz mono, H.264 + AAC.

Time 0 is the first picture, for pictures and sound alike. Only one or two pictures are in memory at any moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from audio.timing import FPS
from audio.waveform import Waveform, to_mono16k
from stylegan2.weights import atomic_path

SYNTHETIC = "synthetic: this talking head is generated, it is not a recording"
_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_NOT_VIDEO = {
    "tty",
    "image2",
    "jpeg_pipe",
    "png_pipe",
    "webp_pipe",
    "bmp_pipe",
}  # text drawn as pictures, and photos
_CODECS = ("libx264", "libopenh264", "mpeg4")  # PyAV's own wheels have the first; distribution builds may not
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
        raise VideoError(f"{path} is not a video file, or is damaged ({_reason(error)}); {advice}") from error
    with container:
        if set(container.format.name.split(",")) & _NOT_VIDEO:
            raise VideoError(
                f"{path} is not a video file (it looks like {container.format.long_name}); {advice}"
            )
        yield container


def _reason(error: Exception) -> str:
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


# ---------------------------------------------------------------------------------------------------- writing


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
                f"{path} cannot be written ({_reason(error)}); check the folder's permissions"
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
