"""A clip given as a folder of numbered pictures: their order, properties, hash, and sound from another file."""

from pathlib import Path

import numpy as np
import pytest
from conftest import FRAMES, noise_bursts, talking_frames
from PIL import Image

from audio.waveform import write_wav
from encoders.footage.faces import DlibDetector
from encoders.footage.picture_folder import picture_frames, probe_pictures, source_hash
from encoders.footage.prepare import PrepareConfig, prepare_clip
from encoders.footage.video_reader import VideoError


def grey_folder(folder: Path, *numbers: int) -> Path:
    folder.mkdir()
    for number in numbers:
        Image.fromarray(np.full((8, 6, 3), number, np.uint8)).save(folder / f"{number}.png")
    return folder


def test_pictures_come_in_the_order_of_their_numbers(tmp_path):
    folder = grey_folder(tmp_path / "clip", 10, 9, 100, 1)
    assert [int(frame[0, 0, 0]) for frame in picture_frames(folder)] == [1, 9, 10, 100]
    info = probe_pictures(folder)
    assert (info.width, info.height, info.fps, info.frames, info.duration) == (6, 8, 25.0, 4, 4 / 25)


def test_the_hash_covers_every_picture_and_the_sound(tmp_path):
    folder = grey_folder(tmp_path / "clip", 1, 2)
    sound = tmp_path / "sound.wav"
    write_wav(sound, noise_bursts(4))
    hashes = [source_hash(folder), source_hash(folder, sound)]
    write_wav(sound, noise_bursts(4, seed=1))
    hashes.append(source_hash(folder, sound))
    Image.fromarray(np.zeros((8, 6, 3), np.uint8)).save(folder / "2.png")
    hashes.append(source_hash(folder))
    assert len(set(hashes)) == 4


def test_a_folder_without_pictures_or_with_a_broken_one_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="empty holds no pictures"):
        probe_pictures(tmp_path / "empty")
    (tmp_path / "empty" / "1.jpg").write_text("no picture")
    with pytest.raises(VideoError, match=r"1\.jpg is not a picture"):
        next(picture_frames(tmp_path / "empty"))


def test_pictures_with_the_sound_apart_become_a_clip(tmp_path):
    folder, sound = tmp_path / "clip", tmp_path / "sound.wav"
    folder.mkdir()
    for number, frame in enumerate(talking_frames(3)):
        Image.fromarray(frame).save(folder / f"{number}.png")
    write_wav(sound, noise_bursts(FRAMES))
    names = ("clip", "s1", "bbaf2n", "train")
    with pytest.raises(VideoError, match=r"without sound.*data\.sound"):
        prepare_clip(folder, DlibDetector(), *names, PrepareConfig())
    clip = prepare_clip(folder, DlibDetector(), *names, PrepareConfig(), sound)
    assert len(clip) == FRAMES and clip.detected.all()
    assert np.abs(clip.waveform).max() > 0.05 and clip.source_hash == source_hash(folder, sound)
