"""Live sound from a pipe: 16 kHz mono, signed 16-bit little endian."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from audio.waveform import AudioError

BLOCK = 2**15  # bytes that are read at most at once
FILES = {b"RIFF": "a wav", b"OggS": "an Ogg", b"fLaC": "a FLAC", b"ID3": "an MP3"}  # first bytes of files
CONVERT = "give wav=FILE, or convert it with: ffmpeg -i INPUT -f s16le -ac 1 -ar 16000 -"


def pcm_blocks(file: BinaryIO) -> Iterator[np.ndarray]:
    """The sound in blocks as they come, float32 (S,) in [-1, 1), until the file ends.

    file: buffered, such as sys.stdin.buffer. Raises AudioError for one without a sample, and for one that begins as a
    sound file does.
    """
    rest, begun = b"", False
    while data := file.read1(BLOCK):  # type: ignore[attr-defined]
        if not begun and (kind := next((k for head, k in FILES.items() if data.startswith(head)), None)):
            raise AudioError(f"Standard input is {kind} file, raw samples are expected: {CONVERT}")
        begun, data = True, rest + data
        whole = len(data) // 2 * 2
        rest = data[whole:]
        if whole:
            yield np.frombuffer(data[:whole], "<i2").astype(np.float32) / 2**15
    if not begun:
        raise AudioError(f"Standard input ended without sound: pipe 16-bit samples into it, {CONVERT}")
