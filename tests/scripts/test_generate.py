"""Speech from sound files and videos of any format."""

from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from av.stream import Disposition
from drawn_videos import grey

from audio.waveform import AudioError, Waveform, write_wav
from encoders.footage.video_reader import VideoError
from encoders.footage.video_writer import write_video
from scripts.stages.generate import generate, read_speech

TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)).astype(np.float32)  # two seconds, 16 kHz


def encoded(path, codec, rate=16000, format=None, cover=False):
    """TONE as a phone or a recorder writes it: one audio track, perhaps with a cover picture."""
    with av.open(str(path), "w", format=format) as container:
        track: Any = container.add_stream(codec, rate=rate, layout="mono")
        picture: Any = container.add_stream("mjpeg", rate=1) if cover else None
        if cover:
            picture.width, picture.height, picture.pix_fmt = 96, 64, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(grey(100), format="rgb24").reformat(format="yuvj420p")
            container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        resampler = av.AudioResampler(track.codec_context.format, "mono", rate, track.frame_size or 1024)
        part = av.AudioFrame.from_ndarray(TONE[None], format="flt", layout="mono")
        part.sample_rate, part.time_base, part.pts = 16000, Fraction(1, 16000), 0
        for source in (part, None):
            for frame in resampler.resample(source):
                container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path


def agreement(samples, expected):
    """The largest correlation over shifts of up to 50 ms (a bare stream keeps the encoder's delay)."""
    length = min(len(samples), len(expected)) - 1600
    return max(
        np.corrcoef(samples[800 + shift : length + shift], expected[800:length])[0, 1]
        for shift in range(-800, 800)
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("memo.m4a", {"codec": "aac", "rate": 44100}),
        ("no suffix", {"codec": "aac", "rate": 44100, "format": "mp4"}),
        ("wrong suffix.wav", {"codec": "aac", "rate": 44100, "format": "mp4"}),
        ("x.aac", {"codec": "aac", "rate": 44100, "format": "adts"}),
        ("x.3gp", {"codec": "libopencore_amrnb", "rate": 8000}),
        ("x.opus", {"codec": "libopus", "rate": 48000, "format": "ogg"}),
        ("cover.mp3", {"codec": "libmp3lame", "rate": 44100, "cover": True}),
        ("cover.m4a", {"codec": "aac", "rate": 44100, "format": "mp4", "cover": True}),
    ],
)
def test_any_format_is_read(tmp_path, name, options):
    waveform = read_speech(encoded(tmp_path / name, **options))
    assert waveform.seconds == pytest.approx(2, abs=0.12)
    assert agreement(waveform.samples, TONE) > 0.98


def test_what_libsndfile_opens_is_read_by_it(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.stages.generate.read_audio", None)
    for suffix in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(tmp_path / f"x.{suffix}", TONE, 16000)
        assert agreement(read_speech(tmp_path / f"x.{suffix}").samples, TONE) > 0.99


def test_the_sound_of_a_video_is_read_whatever_its_suffix(tmp_path):
    write_video(tmp_path / "x.mp4", [grey(0)] * 50, Waveform(TONE))
    (tmp_path / "x.mp4").rename(tmp_path / "x.bin")
    assert agreement(read_speech(tmp_path / "x.bin").samples, TONE) > 0.98


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a", "aac", "3gp", "opus", "raw", "txt", "mp4"])
def test_what_nothing_can_read_is_named_in_one_sentence(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    for content in (b"this is not sound\n" * 50, b"RIFF"):
        path.write_bytes(content)
        with pytest.raises(AudioError, match="cannot be read as sound") as caught:
            read_speech(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_wav_that_states_a_length_of_0_is_read_to_its_end(tmp_path):
    write_wav(tmp_path / "stream.wav", Waveform(TONE))
    content = bytearray((tmp_path / "stream.wav").read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = bytes(4)
    (tmp_path / "stream.wav").write_bytes(content)
    np.testing.assert_allclose(read_speech(tmp_path / "stream.wav").samples, TONE, atol=1e-4)


def test_a_damaged_file_of_a_known_format_is_not_read_in_part(tmp_path):
    soundfile.write(tmp_path / "x.flac", TONE, 16000)
    content = (tmp_path / "x.flac").read_bytes()
    (tmp_path / "x.flac").write_bytes(content[: len(content) // 2] + bytes(len(content) // 4))
    with pytest.raises(AudioError, match=r"x\.flac cannot be read as sound"):
        read_speech(tmp_path / "x.flac")


def test_a_video_without_sound_and_a_cut_recording_are_named(tmp_path):
    write_video(tmp_path / "silent.mp4", [grey(0)] * 12)
    with pytest.raises(VideoError, match=r"silent\.mp4 has no audio track"):
        read_speech(tmp_path / "silent.mp4")
    content = encoded(tmp_path / "x.m4a", "aac", 44100).read_bytes()
    (tmp_path / "x.m4a").write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoError, match=r"x\.m4a is cut off"):
        read_speech(tmp_path / "x.m4a")


@pytest.mark.parametrize(
    ("wav", "of_clip", "named"),
    [
        (0 * TONE, None, "speech.wav"),
        (0.001 * TONE, None, "speech.wav"),
        (None, 0 * TONE, "anna"),
        (TONE, 0 * TONE, None),
        (0.01 * TONE, None, None),
    ],
)
def test_silence_is_said_in_one_line(monkeypatch, wav, of_clip, named):
    class Stopped(Exception):
        pass

    def stopped(*args):
        raise Stopped

    monkeypatch.setattr("scripts.stages.generate.build_renderer", stopped)
    said: list[str] = []
    config: Any = SimpleNamespace(output="x.mp4", wav=None if wav is None else "speech.wav")
    run: Any = SimpleNamespace(say=said.append, timed=lambda stage: nullcontext())
    face = SimpleNamespace(name="anna", speech=None if of_clip is None else Waveform(of_clip))
    with pytest.raises(Stopped):
        person: Any = SimpleNamespace(face=face)
        generate(config, run, person, Path("stage1.pt"), None if wav is None else Waveform(wav))
    assert len(said) == (named is not None)
    if named:
        assert said[0].startswith(f"The sound of {named} is silent throughout") and "\n" not in said[0]
