"""Whether the end of a sound or video file is missing, judged from the bytes that its format states.

Formats that state no length cannot be judged: AAC, AMR and MP3 streams, MPEG program and transport streams, Flash video, and
Matroska and Ogg that were written live, where the cut falls between two pages. FLAC states samples, which the readers count;
encoders/footage/video_reader.py checks MP4.
"""

from pathlib import Path
from typing import BinaryIO, NamedTuple

from audio.timing import FPS

_MP3_SYNC = {
    bytes([0xFF, 0xE0 | rest]) for rest in range(32) if rest >> 1 & 3 == 1
}  # a frame's first bytes, layer III
_LARGEST_MP3_FRAME = 1441  # bytes
_LARGEST_OGG_PAGE = 65307  # bytes
_OPEN = 2**62  # bytes; a larger number says that the length is not known
_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")  # WMA and WMV
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # its object that states the file's size
_SEGMENT = b"\x18\x53\x80\x67"  # Matroska's element that holds all others but the header


class WavData(NamedTuple):
    """The sound of a wav file (RIFF) in bytes: as stated by its header, as held, and in a second (0: not stated)."""

    stated: int
    held: int
    a_second: int


def missing_end(path: Path) -> str | None:
    """How much of a wav (RF64, W64), AVI, AIFF, AU, CAF, MP3, Ogg, Matroska (WebM) or WMA, WMV file is there, if its end is
    missing; else None.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
    if (wav := wav_data(path)) is not None:
        # A recorder that writes to a pipe does not know the length and states 0 or nearly 2 or 4 GiB. A difference below
        # the duration of one image (0.04 s) is accepted, because some writers count the header in.
        second = wav.a_second
        if second and wav.stated < 0x7FFF0000 and wav.stated - wav.held >= second / FPS:
            return f"it holds {wav.held / second:.2f} s of the {wav.stated / second:.2f} s that its header states"
        return None
    stated = 0
    if head[:4] == b"FORM" and head[8:11] == b"AIF":
        stated = 8 + int.from_bytes(head[4:8], "big")
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        stated = _end_of_riffs(path, size)
    elif head[:4] == b"RF64" and head[12:16] == b"ds64":
        stated = 8 + int.from_bytes(head[20:28], "little")
    elif head[:16] == _W64:
        stated = int.from_bytes(head[16:24], "little")
    elif head[:4] == b".snd" and head[8:12] != b"\xff\xff\xff\xff":  # unknown
        stated = int.from_bytes(head[4:8], "big") + int.from_bytes(head[8:12], "big")
    elif head[:4] == b"caff":
        stated = _end_of_caf(path, size)
    elif head[:16] == _ASF and (place := head.find(_ASF_FILE)) > 0:
        stated = int.from_bytes(head[place + 40 : place + 48], "little")
    elif head[:4] == b"OggS":
        stated = _end_of_last_page(path, size)
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        stated = _end_of_segment(head)
    elif head[:3] == b"ID3" or head[:2] in _MP3_SYNC:
        stated = _end_of_mp3(path, head)
    if size < stated < _OPEN:
        return f"it has {size} bytes and states that it has {stated} at least"
    return None


def wav_data(path: Path) -> WavData | None:
    """The sound of a wav file; None for a file of another format or without sound."""
    size, a_second, offset = path.stat().st_size, 0, 12
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return None
        while offset + 8 <= size:
            file.seek(offset)
            chunk = file.read(24)
            name, length = chunk[:4], int.from_bytes(chunk[4:8], "little")
            if name == b"fmt ":
                a_second = int.from_bytes(chunk[16:20], "little")
            if name == b"data":
                return WavData(length, size - offset - 8, a_second)
            offset += 8 + length + length % 2
    return None


def _end_of_riffs(path: Path, size: int) -> int:
    """AVI: one RIFF after another, each with its size, which is 0 if a writer to a pipe left it open."""
    offset = stated = 0
    with path.open("rb") as file:
        while offset + 8 <= size and (chunk := _read(file, offset, 8))[:4] == b"RIFF":
            length = int.from_bytes(chunk[4:], "little")
            if length in (0, 0xFFFFFFFF):
                break
            stated = offset + length  # less the 8 bytes of this header, because some writers count it in
            offset += 8 + length + length % 2
    return stated


def _end_of_caf(path: Path, size: int) -> int:
    """CAF: the end of the chunk that holds the sound; 0 if a recorder left its size open (-1)."""
    offset = 8
    with path.open("rb") as file:
        while offset + 12 <= size:
            chunk = _read(file, offset, 12)
            length = int.from_bytes(chunk[4:], "big", signed=True)
            if length < 0:
                return 0
            offset += 12 + length
            if chunk[:4] == b"data":
                return offset
    return offset if offset > size else 0


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _end_of_last_page(path: Path, size: int) -> int:
    """Ogg: every page states the lengths of its segments."""
    begin = max(0, size - _LARGEST_OGG_PAGE - 4)
    with path.open("rb") as file:
        file.seek(begin)
        tail = file.read()
    place = tail.rfind(b"OggS\0")
    if place < 0:
        return 0  # other bytes follow the sound
    page = tail[place:]
    segments = page[26] if len(page) > 26 else 255
    return begin + place + 27 + segments + sum(page[27 : 27 + segments])


def _end_of_segment(head: bytes) -> int:
    """Matroska: the segment follows the header; a stream states no size, all bits of which are 1 then."""
    place = head.find(_SEGMENT, 4) + 4
    if place < 4 or place == len(head) or head[place] == 0:
        return 0
    width = 9 - head[place].bit_length()  # the leading zeros say how many bytes there are
    value = int.from_bytes(head[place : place + width], "big") & ((1 << 7 * width) - 1)
    unknown = value == (1 << 7 * width) - 1
    return 0 if unknown else place + width + value


def _end_of_mp3(path: Path, head: bytes) -> int:
    """MP3: encoders state the bytes of the whole in the first frame (a header of Xing, LAME or Fraunhofer), after the ID3v2
    tag.
    """
    begin = 0
    if head[:3] == b"ID3":
        begin = 10 + sum((byte & 127) << 7 * (3 - k) for k, byte in enumerate(head[6:10]))
        with path.open("rb") as file:
            file.seek(begin)
            head = file.read(256)
    if head[36:40] == b"VBRI":
        return begin + int.from_bytes(head[46:50], "big") - _LARGEST_MP3_FRAME
    for name in (b"Xing", b"Info"):
        place = head[:64].find(name)  # after the frame's header and side information, 13 to 36 bytes
        if place > 0:
            fields = head[place + 4 : place + 16]
            flags = int.from_bytes(fields[:4], "big")
            if flags & 2:
                at = 8 if flags & 1 else 4
                # Some encoders count the frame that holds this header, others do not.
                return begin + int.from_bytes(fields[at : at + 4], "big") - _LARGEST_MP3_FRAME
    return 0
