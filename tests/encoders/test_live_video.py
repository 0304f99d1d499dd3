"""A video that is watched while it is written."""

import io
from typing import Any

import av
import numpy as np
import pytest

from encoders.footage.live_video import LiveVideo
from encoders.footage.video_writer import SYNTHETIC

TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(60 * 640) / 16000)).astype(np.float32)


def write(file, frames=60, format: Any = "mp4", after=lambda k: None):
    with LiveVideo(file, format) as video:
        for k in range(frames):
            video.add(np.full((64, 48, 3), 4 * k, np.uint8), TONE[640 * k : 640 * (k + 1)])
            after(k)
    return video


def test_frames_sound_and_the_note_are_there():
    file = io.BytesIO()
    write(file)
    with av.open(io.BytesIO(file.getvalue()), "r") as container:
        assert container.metadata["comment"] == SYNTHETIC
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx(np.arange(60) / 25)
    levels = [frame.to_ndarray(format="rgb24").mean() for frame in frames]
    assert np.abs(levels - 4.0 * np.arange(60)).max() < 4
    with av.open(io.BytesIO(file.getvalue()), "r") as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert (
        abs(len(sound) - len(TONE)) <= 1024 and np.corrcoef(sound[2000:30000], TONE[2000:30000])[0, 1] > 0.9
    )


def test_what_was_written_can_be_watched_before_the_end():
    """All frames but the last two, at any time."""
    file, watched = io.BytesIO(), []

    def watch(k):
        if k in (2, 10, 40):
            with av.open(io.BytesIO(file.getvalue()), "r") as container:
                watched.append((k, sum(1 for _ in container.decode(video=0))))

    write(file, after=watch)
    assert all(count >= k - 1 for k, count in watched) and len(watched) == 3


def test_raw_frames_are_written_at_once():
    file = io.BytesIO()
    write(file, 3, "raw", lambda k: pytest.fail("late") if file.tell() != (k + 1) * 64 * 48 * 3 else None)
    assert np.frombuffer(file.getvalue(), np.uint8).reshape(3, 64, 48, 3)[2].max() == 8


def test_no_frame_no_video():
    file = io.BytesIO()
    write(file, 0)
    assert file.getvalue() == b""


class ClosedPipe(io.BytesIO):
    """After 3,000 bytes its reader is gone, or a signal comes."""

    closed_writes = 0
    error: BaseException = BrokenPipeError()

    def write(self, data):
        if self.tell() > 3000:
            self.closed_writes += 1
            raise self.error
        return super().write(data)


@pytest.mark.parametrize("error", [BrokenPipeError(), SystemExit(143), KeyboardInterrupt()])
@pytest.mark.parametrize("format", ["mp4", "raw"])
def test_nothing_more_is_written_after_an_error(error, format):
    """In an mp4, PyAV would end the process at an exception that is no Exception."""
    file = ClosedPipe()
    file.error = error
    with pytest.raises(type(error)):
        write(file, format=format)
    assert file.closed_writes == 1
