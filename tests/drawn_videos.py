"""Small videos whose content is known, shared by the tests of reading and writing."""

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
