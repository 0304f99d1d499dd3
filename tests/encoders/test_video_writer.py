"""Writing a video: pictures, sound, size, comment, and refused output files."""

import av
import numpy as np
import pytest
from drawn_videos import brightness, clicks, grey, levels, onset

from audio.waveform import Waveform
from encoders.footage.video_reader import VideoError, iter_frames, probe, read_audio
from encoders.footage.video_writer import SYNTHETIC, write_video


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_frames_and_sound_stay_in_sync(tmp_path, suffix):
    path = tmp_path / f"a clip [x=1]{suffix}"
    assert write_video(path, levels(50), clicks(50 * 640, 8000, 20_000)) == 50
    assert brightness(path) == list(range(50))
    samples = read_audio(path).samples
    assert onset(samples) == pytest.approx(8000, abs=16)
    assert onset(samples[12_000:]) + 12_000 == pytest.approx(20_000, abs=16)
    if suffix != ".mkv":  # which does not say how long its last block of sound is
        assert len(samples) == 50 * 640
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("samples", [1000, 20 * 640, 30 * 640])
def test_the_sound_is_as_long_as_the_frames(tmp_path, samples):
    path = tmp_path / "x.mp4"
    write_video(path, levels(20), Waveform(np.full(samples, 0.1, np.float32)))
    info = probe(path)
    assert info.frames == 20 and info.duration == pytest.approx(0.8) and info.has_audio
    assert len(read_audio(path).samples) == 20 * 640
    with av.open(str(path)) as container:
        assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]
        assert container.streams.video[0].format.name == "yuv420p"


def test_odd_sizes_grow_by_one(tmp_path):
    write_video(tmp_path / "x.mp4", [grey(90, 65, 97)] * 2)
    frame = next(iter_frames(tmp_path / "x.mp4"))
    assert frame.shape == (66, 98, 3) and np.abs(frame.astype(int) - 90).max() <= 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, SYNTHETIC),
        ({"comment": "generator 1234"}, SYNTHETIC + "; generator 1234"),
        ({"synthetic": False, "comment": "x"}, "x"),
        ({"synthetic": False}, None),
    ],
)
def test_the_comment_marks_generated_videos(tmp_path, options, expected):
    write_video(tmp_path / "x.mp4", levels(2), **options)
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert container.metadata.get("comment") == expected


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_failure_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"before")

    def frames():
        yield from levels(30)
        raise error

    with pytest.raises(error):
        write_video(path, frames(), clicks(30 * 640, 100))
    assert path.read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1


def test_unusable_names_and_frames_are_refused(tmp_path):
    with pytest.raises(VideoError, match="no frame"):
        write_video(tmp_path / "x.mp4", [])
    with pytest.raises(VideoError, match=r"must end in one of \.mp4"):
        write_video(tmp_path / "x.gif", levels(1))
    with pytest.raises(ValueError, match="frame 1 is uint8"):
        write_video(tmp_path / "x.mp4", [grey(1), grey(1, 32)])
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(VideoError, match="is a folder"):
        write_video(tmp_path / "folder.mp4", levels(1))
    assert [p.name for p in tmp_path.iterdir()] == ["folder.mp4"]


def test_colours_survive(tmp_path):
    colours = [(200, 30, 40), (20, 160, 60), (30, 60, 220), (240, 200, 170), (128, 128, 128)]
    image = np.concatenate([np.full((64, 64, 3), c, np.uint8) for c in colours], axis=1)
    write_video(tmp_path / "x.mp4", [image] * 3)
    frame = next(iter_frames(tmp_path / "x.mp4"))
    for index, colour in enumerate(colours):
        np.testing.assert_allclose(frame[32, 64 * index + 32], colour, atol=4)
    assert frame.dtype == np.uint8 and frame.flags.c_contiguous
