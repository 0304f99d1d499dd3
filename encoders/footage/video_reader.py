"""Reads the frames and the sound of a video (PyAV): frames at 25 fps by their time stamps, sound as 16 kHz mono.

Time 0 is the first frame, for frames and sound alike. Only a few frames are in memory at any moment.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import av.error
import av.filter
import numpy as np
from av.video.reformatter import Colorspace

from audio.timing import FPS
from audio.waveform import AudioError, Block, Waveform, blocks_to_mono16k
from audio.whole_file import missing_end
from encoders.footage.tone_mapping import HLG, PQ, sdr_picture

# Formats that FFmpeg opens although they are no videos: text rendered as frames, and photos.
_NOT_VIDEO = {"tty", "image2", "jpeg_pipe", "png_pipe", "webp_pipe", "bmp_pipe"}
# Boxes of an MP4 or MOV file that belong to its pictures and sound. Bytes of any other kind may follow a whole file.
_MEDIA_BOXES = {b"moov", b"mdat", b"moof", b"mfra", b"styp", b"sidx", b"emsg", b"prft"}
LONGEST_GAP = 600  # seconds without a frame or sound; a longer gap indicates a broken time stamp
_PADDED = 4096  # samples by which the last block of a compressed sound may be longer than the sound
X = TypeVar("X")
Timed = tuple[Fraction, Fraction, Any]  # time stamp and duration in seconds, decoded frame


class VideoError(ValueError):
    """A video that cannot be read or written; the message names the file and what to do."""


class UnreadableError(VideoError):
    """A file that FFmpeg cannot open, or in which it finds no sound that it can decode."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video according to its header."""

    width: int  # px, as displayed
    height: int
    fps: float  # average rate
    frames: int  # declared, or estimated from duration and rate
    duration: float  # seconds
    rotation: int  # clockwise turn that width and height already include: 0, 90, 180 or 270
    has_audio: bool
    start: Fraction  # time stamp of the first frame, seconds


def _check_boxes(path: Path) -> None:
    """Reads the top-level boxes of an MP4 or MOV file; VideoError if its index is missing or its end is cut off.

    Cameras and phones append bytes that are no box, or boxes of their own, after moov and mdat: these are left unread.
    """
    size, offset, kinds = path.stat().st_size, 0, set()
    with path.open("rb") as file:
        while offset + 8 <= size and len(kinds) < 64:
            file.seek(offset)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if not kinds and kind not in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
                return  # another container
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            elif length == 0:
                length = size - offset
            if length < 8 or offset + length > size:
                if {b"moov", b"mdat"} <= kinds and kind not in _MEDIA_BOXES:
                    return  # all of the video is there
                raise VideoError(
                    f"{path} is cut off ({size} bytes, it should have more); copy or download it again"
                )
            kinds.add(kind)
            offset += length
    if kinds and not kinds & {b"moov", b"moof"}:
        raise VideoError(f"{path} is cut off (its index, the moov box, is missing); copy or record it again")


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """The opened container; VideoError if the file is not a readable video."""
    path = Path(path)
    if not path.exists():
        raise VideoError(f"video file {path} does not exist; check the path")
    if path.is_dir():
        raise VideoError(f"{path} is a folder; give one video file")
    try:
        if path.stat().st_size == 0:
            raise VideoError(f"video file {path} is empty (0 bytes); copy or record it again")
        _check_boxes(path)
        if (how := missing_end(path)) is not None:
            raise VideoError(f"{path} is cut off: {how}; export or copy it again")
    except OSError as error:
        raise VideoError(
            f"{path} cannot be read ({error.strerror}); check its permissions and its disk"
        ) from error
    advice = "give an mp4, mov, mkv, avi or mpg file that a player can open"
    try:
        # An absolute path is never taken for a URL; the whitelist keeps playlists from opening network addresses.
        container: Any = av.open(
            str(path.resolve()), metadata_errors="ignore", options={"protocol_whitelist": "file,crypto,data"}
        )
    except (av.error.FFmpegError, ValueError) as error:
        raise UnreadableError(
            f"{path} is not a video file, or is damaged ({reason(error)}); {advice}"
        ) from error
    with container:
        if set(container.format.name.split(",")) & _NOT_VIDEO:
            raise UnreadableError(
                f"{path} is not a video file (it looks like {container.format.long_name}); {advice}"
            )
        yield container


def reason(error: Exception) -> str:
    """FFmpeg's message without its number and final stop."""
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _is_cover(stream: Any) -> bool:
    """Whether a video stream is an album cover."""
    return bool(stream.disposition & stream.disposition.__class__.attached_pic)


def _video_stream(container: Any, path: str | Path) -> Any:
    for stream in container.streams.video:
        if not _is_cover(stream):
            stream.thread_type = "AUTO"
            return stream
    raise VideoError(f"{path} has no video stream; give a video file (a sound file goes to wav=)")


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's frames, and None for each packet that cannot be decoded, so that the caller can count them."""
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


def _timed_frames(container: Any, path: str | Path) -> Iterator[Timed]:
    """(time stamp, duration, frame), times in seconds and rising; VideoError if the file ends too early."""
    stream = _video_stream(container, path)
    usual = 1 / Fraction(stream.average_rate or stream.guessed_rate or FPS)
    base = Fraction(stream.time_base or 0)
    count, bad, time, end = 0, 0, None, Fraction(0)
    for frame in _decoded(container, stream):
        if frame is None:
            bad += 1
            continue
        count += 1
        if frame.pts is not None:
            stamp = frame.pts * base
        else:
            stamp = time + usual if time is not None else Fraction(0)
        if time is not None and stamp <= time:
            continue  # a repeated or broken time stamp, not later than the previous one
        if time is not None and stamp - time > LONGEST_GAP:
            raise VideoError(
                f"{path} shows no picture for {float(stamp - time):.0f} s after the first {float(time):.0f} s; cut or "
                "convert it first"
            )
        time = stamp
        duration = (frame.duration or 0) * base or usual
        end = time + duration
        yield time, duration, frame
    if count == 0:
        raise VideoError(
            f"{path} has a video stream, but no frame of it can be decoded; convert it to H.264 first"
        )
    declared = stream.frames
    declared_end = ((stream.start_time or 0) + stream.duration) * base if stream.duration else end
    # Edit lists hide frames that the header still counts, so a low count alone does not mean damage.
    if declared and count < declared and (bad or end + 2 * usual < declared_end):
        raise VideoError(
            f"{path} is damaged or cut short: {count} of its {declared} frames can be read; copy or convert it again"
        )


def _deinterlaced(timed: Iterable[Timed], reading: dict[str, str]) -> Iterator[Timed]:
    """The same items, an interlaced frame replaced by one full picture of its first field, the other lines estimated.

    Without this, moving edges have combs, because the two fields of a frame were recorded at different times. Frames
    that are not marked as interlaced stay as they are.
    """
    graph, kind = None, None
    waiting: deque[Timed] = deque()  # frames inside the filter, which looks one ahead
    for item in timed:
        frame = item[2]
        now = (frame.width, frame.height, frame.format.name)
        if graph is not None and now != kind:
            yield from _from_filter(graph, waiting, last=True)
            graph = None
        if graph is None and frame.interlaced_frame and min(frame.width, frame.height) >= 4:
            graph, kind = _filter(frame), now
            reading["fields"] = "deinterlaced"
        if graph is None:
            yield item
        else:
            waiting.append(item)
            graph.push(frame)
            yield from _from_filter(graph, waiting)
    if graph is not None:
        yield from _from_filter(graph, waiting, last=True)


def _filter(frame: Any) -> Any:
    """A graph that makes one picture of each interlaced frame and passes the others. Its time stamps are not used."""
    graph = av.filter.Graph()
    rate = Fraction(1, FPS)
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=rate)
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def _from_filter(graph: Any, waiting: deque[Timed], last: bool = False) -> Iterator[Timed]:
    """The pictures that a filter has ready, each with the time stamp and duration of its own frame."""
    if last:
        graph.push(None)
    while waiting:
        try:
            picture = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        time, duration, frame = waiting.popleft()
        yield time, duration, picture if frame.interlaced_frame else frame


def nearest_in_time(timed: Iterable[tuple[Fraction, Fraction, X]], fps: int | Fraction = FPS) -> Iterator[X]:
    """(time, duration, item), times in seconds and rising -> for each k / fps the item nearest in time.

    Of two equally near items the earlier one is taken. The first item's time counts as 0. Yields
    round(total duration * fps) items, at least one.
    """
    previous: tuple[Fraction, Fraction, X] | None = None
    start, k = Fraction(0), 0
    for time, duration, item in timed:
        if previous is None:
            start = time
        else:
            while Fraction(2 * k, fps) <= previous[0] + time - 2 * start:
                yield previous[2]
                k += 1
        previous = time, duration, item
    if previous is None:
        return
    total = max(1, int((previous[0] + previous[1] - start) * fps + Fraction(1, 2)))
    for _ in range(k, total):
        yield previous[2]


class _Converter:
    """Decoded frames -> uint8 (H, W, 3) RGB with square pixels, rotated upright, all of the first frame's size.

    HDR frames are made SDR.
    """

    def __init__(self, first: Any, stream: Any, reading: dict[str, str]) -> None:
        aspect: Fraction | None = stream.sample_aspect_ratio
        self.transfer = int(stream.codec_context.color_trc or 0)
        self.turns = round((first.rotation or 0) / 90) % 4  # counterclockwise quarter turns, as for np.rot90
        self.height = first.height
        self.width = max(1, round(first.width * (aspect or 1)))
        # Players decode unlabelled HD as BT.709 and unlabelled SD as BT.601.
        unlabelled_hd = int(first.colorspace) in (0, 2) and first.height >= 720 and "yuv" in first.format.name
        self.matrix = Colorspace.ITU709 if unlabelled_hd else None
        if self.transfer in (PQ, HLG):
            reading["colours"] = f"tone-mapped from {'PQ' if self.transfer == PQ else 'HLG'}"
        if self.turns:
            reading["rotation"] = f"turned by {(-90 * self.turns) % 360} degrees clockwise"

    def __call__(self, frame: Any) -> np.ndarray:
        hdr = self.transfer in (PQ, HLG)
        image = frame.to_ndarray(
            format="rgb48le" if hdr else "rgb24",
            width=self.width,
            height=self.height,
            src_colorspace=self.matrix,
            threads=1,
        )
        if hdr:
            image = sdr_picture(image, self.transfer)
        return np.ascontiguousarray(np.rot90(image, self.turns) if self.turns else image)


def probe(path: str | Path) -> VideoInfo:
    """The properties of a video from its header and first frame. Raises VideoError."""
    with _opened(path) as container:
        stream = _video_stream(container, path)
        time, _, first = next(_timed_frames(container, path))
        convert = _Converter(first, stream, {})
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


def own_rate(path: str | Path) -> Fraction:
    """A video's average frame rate, or 25 if its header gives none between 10 and 60. Raises VideoError."""
    rate = Fraction(probe(path).fps).limit_denominator(1001)
    return rate if 10 <= rate <= 60 else Fraction(FPS)


def iter_frames(
    path: str | Path, fps: int | Fraction = FPS, reading: dict[str, str] | None = None
) -> Iterator[np.ndarray]:
    """uint8 (H, W, 3) RGB, C-contiguous, upright: for each time k / fps the frame nearest in time.

    reading: gets what was done to the decoded frames, in words: "deinterlaced", "tone-mapped from PQ", "turned by 90
    degrees clockwise". Raises VideoError, also at the end if fewer frames came than the file declares. A repeated frame is
    a new array.
    """
    reading = {} if reading is None else reading
    with _opened(path) as container:
        stream = _video_stream(container, path)
        convert = None
        for frame in nearest_in_time(_deinterlaced(_timed_frames(container, path), reading), fps):
            convert = convert or _Converter(frame, stream, reading)
            yield convert(frame)


def read_audio(path: str | Path, reading: dict[str, str] | None = None) -> Waveform:
    """The sound of a video or sound file as 16 kHz mono, sample 0 at the first frame; its length is the sound's own.

    Of several audio tracks the first that is not silent is read; if all are silent, the first. reading: gets which one it
    is, "sound track 2 of 3". Encoder priming, a late or early start and gaps follow the time stamps. Raises VideoError (no
    audio track, unreadable) and AudioError (too short, not finite).
    """
    with _opened(path) as container:
        tracks = len(container.streams.audio)
        if not tracks:
            raise VideoError(
                f"{path} has no audio track; use a recording with sound, or give the sound as a wav file"
            )
        has_frames = any(not _is_cover(stream) for stream in container.streams.video)
    start = probe(path).start if has_frames else None
    chosen, found = 0, _read_track(path, 0, start)
    if found.silent:
        for index in range(1, tracks):
            with contextlib.suppress(VideoError, AudioError):  # a track that cannot be read is passed over
                if not (track := _read_track(path, index, start)).silent:
                    chosen, found = index, track
                    break
    if reading is not None and tracks > 1:
        reading["sound"] = f"sound track {chosen + 1} of {tracks}"
    return found


def _read_track(path: str | Path, index: int, start: Fraction | None) -> Waveform:
    """One audio track as 16 kHz mono; sample 0 at `start` (seconds), or at the track's first sample if that is None."""
    return blocks_to_mono16k(lambda: _joined(_track_blocks(path, index, start)), name=f"the sound of {path}")


def _joined(blocks: Iterator[Block], least: int = 2**17) -> Iterator[Block]:
    """Blocks of about `least` samples, because FFmpeg's are short; one ends where the number of channels changes."""
    waiting: list[np.ndarray] = []
    rate = 0
    for rate, block in blocks:
        if waiting and (len(block) != len(waiting[0]) or sum(b.shape[1] for b in waiting) >= least):
            yield rate, np.concatenate(waiting, axis=1)
            waiting = []
        waiting.append(block)
    if waiting:
        yield rate, np.concatenate(waiting, axis=1)


def _track_blocks(path: str | Path, index: int, start: Fraction | None) -> Iterator[Block]:
    """The samples of one audio track in order, positioned by their time stamps; see _read_track."""
    with _opened(path) as container:
        stream = container.streams.audio[index]
        base, rate, length = Fraction(stream.time_base), 0, 0
        waiting: deque[np.ndarray] = (
            deque()
        )  # the last samples, because the end of the sound is known at the end only
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
            block = _channels(frame)
            # Position the block by its time stamp: pad a gap with silence, cut an overlap. Some containers round time
            # stamps to a millisecond, so after the first block differences below 40 ms are ignored.
            gap = round((stamp - start) * rate) - length if stamp is not None else 0
            if not length or abs(gap) > 0.04 * rate:
                if gap > LONGEST_GAP * rate:
                    raise VideoError(
                        f"the audio track of {path} has a gap of {gap // rate} s; convert it first"
                    )
                while gap > 0:
                    waiting.append(np.zeros((len(block), min(gap, rate)), np.float32))
                    length, gap = length + waiting[-1].shape[1], gap - waiting[-1].shape[1]
                    yield from ((rate, settled) for settled in _settled(waiting))
                block = block[:, -gap:]
            if block.size:
                waiting.append(block)
                length += block.shape[1]
            yield from ((rate, settled) for settled in _settled(waiting))
        if not length:
            raise UnreadableError(
                f"the audio track of {path} holds no sound that can be decoded; export the video again"
            )
        if container.format.name == "flac" and stream.duration and length < stream.duration * base * rate:
            raise VideoError(
                f"{path} is cut off: it holds {length / rate:.2f} s of the {float(stream.duration * base):.2f} s that "
                "its header states; export or copy it again"
            )
        if stream.duration and start is not None:
            # The last block is padded to full size; the end of the sound is read from the header.
            end = round((((stream.start_time or 0) + stream.duration) * base - start) * rate)
            surplus = length - end if 0 < length - end <= _PADDED else 0
            while surplus and waiting:
                last = waiting.pop()
                if last.shape[1] > surplus:
                    waiting.append(last[:, :-surplus])
                surplus -= min(surplus, last.shape[1])
        yield from ((rate, block) for block in waiting)


def _settled(waiting: deque[np.ndarray]) -> Iterator[np.ndarray]:
    """Takes out the first blocks, so that at least _PADDED samples stay."""
    while waiting and sum(block.shape[1] for block in waiting) - waiting[0].shape[1] >= _PADDED:
        yield waiting.popleft()


def _channels(frame: Any) -> np.ndarray:
    """Decoded sound of any sample format -> float32 (C, S) in [-1, 1]."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128.0) / 128.0
    elif np.issubdtype(samples.dtype, np.signedinteger):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32)
