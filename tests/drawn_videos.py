"""Small videos whose content is known, shared by the tests of reading and writing."""

import struct

import numpy as np

from audio.waveform import Waveform
from encoders.footage.video_reader import iter_frames

HEIGHT, WIDTH = 64, 96


def grey(value, height=HEIGHT, width=WIDTH):
    return np.full((height, width, 3), value, np.uint8)


def levels(count, step=4):
    """Frames whose brightness is their index times step."""
    return (grey(index * step) for index in range(count))


def clicks(samples, *places):
    wave = np.zeros(samples, np.float32)
    for place in places:
        wave[place : place + 200] = 0.6 * np.sin(np.arange(200) * 0.5)
    return Waveform(wave)


def onset(samples):
    return int(np.flatnonzero(np.abs(samples) > 0.1)[0])


def brightness(path, step=4):
    return [round(float(frame.mean()) / step) for frame in iter_frames(path)]


def turned_by_a_phone(path, a, b, c, d):
    """Write the rotation matrix of a phone's video into the track header."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # in a version 0 header the matrix starts at byte 40
    one = 1 << 16
    content[place : place + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
