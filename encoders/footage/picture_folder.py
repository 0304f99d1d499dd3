"""A clip that is given as a folder of numbered pictures, as some copies of GRID are; it has no sound of its own."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from audio.timing import FPS
from encoders.content_hash import content_hash
from encoders.footage.video_reader import VideoError, VideoInfo
from stylegan2.images import read_rgb
from stylegan2.weights import file_hash

PICTURES = {".jpg", ".jpeg", ".png"}


def is_picture(path: Path) -> bool:
    """By its suffix; hidden files such as ._1.jpg hold no picture."""
    return path.suffix.lower() in PICTURES and not path.name.startswith(".")


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names: 2.jpg comes before 10.jpg."""
    files = [path for path in folder.iterdir() if is_picture(path)]
    return sorted(files, key=lambda path: ([int(n) for n in re.findall(r"\d+", path.stem)], path.name))


def picture_frames(folder: Path) -> Iterator[np.ndarray]:
    """uint8 (H, W, 3) RGB, one picture per frame of 25 fps. Raises VideoError."""
    for path in picture_files(folder):
        try:
            yield np.array(read_rgb(path))
        except (OSError, ValueError) as error:
            raise VideoError(f"{path} is not a picture that can be read ({error}); copy it again") from error


def probe_pictures(folder: Path) -> VideoInfo:
    """The properties that probe returns for a video. Raises VideoError for a folder without pictures."""
    first = next(picture_frames(folder), None)
    if first is None:
        raise VideoError(f"{folder} holds no pictures; check the folder")
    frames = len(picture_files(folder))
    return VideoInfo(
        first.shape[1],
        first.shape[0],
        float(FPS),
        frames,
        frames / FPS,
        0,
        has_audio=False,
        start=Fraction(0),
    )


def source_hash(path: Path, sound: Path | None = None) -> str:
    """sha256 of a video file, or of all pictures of a folder, together with the sound file where there is one."""
    if path.is_file() and sound is None:
        return file_hash(path)
    files = [path] if path.is_file() else picture_files(path)
    return content_hash([file_hash(file) for file in [*files, *([sound] if sound else [])]])
