"""A sound file whose end is missing is told from a whole one, in each format that states its length."""

import av
import numpy as np
import pytest
import soundfile

from audio.waveform import AudioError, read_waveform
from audio.whole_file import missing_end
from encoders.footage.video_reader import VideoError, read_audio

RATE = 48000
NOISE = (0.1 * np.random.default_rng(0).standard_normal(3 * RATE)).astype(np.float32)


def written(path, codec=None, options=None):
    """NOISE in the format of the suffix, by libsndfile, or by FFmpeg with a codec."""
    if codec is None:
        soundfile.write(path, NOISE, RATE, format=path.suffix[1:].upper())
        return path
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        stream.bit_rate = 64000
        resampler = av.AudioResampler(stream.format, "mono", RATE, stream.codec_context.frame_size)
        frame = av.AudioFrame.from_ndarray(NOISE[None], "flt", "mono")
        frame.sample_rate, frame.pts = RATE, 0
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))
    return path


def cut(path, share):
    content = path.read_bytes()
    short = path.with_name(f"cut{path.suffix}")
    short.write_bytes(content[: int(len(content) * share)])
    return short


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("x.mp3", None),
        ("x.mp3", "libmp3lame"),
        ("x.ogg", None),
        ("x.opus", "libopus"),
        ("x.webm", "libopus"),
        ("x.mka", "aac"),
        ("x.aiff", None),
        ("x.wav", None),
        ("x.rf64", None),
        ("x.w64", None),
        ("x.au", None),
        ("x.caf", None),
        ("x.caf", "alac"),
        ("x.avi", "pcm_s16le"),
        ("x.avi", "libmp3lame"),
        ("x.wma", "wmav2"),
    ],
)
def test_a_missing_end_is_noticed(tmp_path, name, codec, share):
    whole = written(tmp_path / name, codec)
    assert missing_end(whole) is None
    assert abs(read_audio(whole).seconds - 3) < 0.07
    short = cut(whole, share)
    with pytest.raises(
        AudioError, match=rf"cut{short.suffix} is cut off: it h[^.]+.*; export or copy it again"
    ):
        read_waveform(short)
    with pytest.raises(VideoError, match="is cut off"):
        read_audio(short)


def test_an_mp3_behind_a_tag(tmp_path):
    tag = b"ID3\4\0\0" + bytes([0, 0, 8, 0]) + bytes(1024)
    sound = written(tmp_path / "x.mp3").read_bytes()
    (tmp_path / "tagged.mp3").write_bytes(tag + sound)
    assert missing_end(tmp_path / "tagged.mp3") is None
    (tmp_path / "tagged.mp3").write_bytes(tag + sound[:-9000])
    assert missing_end(tmp_path / "tagged.mp3") is not None


def test_an_mp3_of_fraunhofers_encoder_states_its_bytes(tmp_path):
    """Its header, VBRI, stands in the first frame, which is otherwise empty; no such encoder is at hand here."""
    sound = written(tmp_path / "x.mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"}).read_bytes()
    first = sound[:4] + bytes(32) + b"VBRI" + bytes(6) + (len(sound) + 192).to_bytes(4, "big")
    whole = first.ljust(192, b"\0") + sound
    (tmp_path / "x.mp3").write_bytes(whole)
    assert missing_end(tmp_path / "x.mp3") is None
    (tmp_path / "x.mp3").write_bytes(whole[: len(whole) // 2])
    assert missing_end(tmp_path / "x.mp3") is not None


def test_an_avi_of_two_parts(tmp_path):
    """Above 1 GB an AVI has one RIFF after another."""
    part = b"RIFF" + (1000).to_bytes(4, "little") + b"AVI " + bytes(996)
    for content, whole in (
        (2 * part, True),
        (2 * part + b"JUNK", True),
        (part + part[:-500], False),
        (b"RIFF" + bytes(4) + part[8:-500], True),  # written to a pipe: its length is not known
    ):
        (tmp_path / "x.avi").write_bytes(content)
        assert (missing_end(tmp_path / "x.avi") is None) == whole


def test_flac_states_its_samples(tmp_path):
    short = cut(written(tmp_path / "x.flac"), 0.6)
    with pytest.raises(VideoError, match=r"cut off: it holds 1\.\d\d s of the 3\.00 s"):
        read_audio(short)
    with pytest.raises(AudioError, match=r"cut\.flac"):
        read_waveform(short)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("x.mp3", "libmp3lame", {"write_xing": "0"}),
        ("x.mka", "aac", {"live": "1"}),
        ("x.aac", "aac", None),
        ("x.ts", "aac", None),
    ],
)
def test_a_stream_that_states_no_length_is_accepted(tmp_path, name, codec, options):
    assert missing_end(cut(written(tmp_path / name, codec, options), 0.6)) is None


@pytest.mark.parametrize(
    "magic",
    [
        b"ID3",
        b"OggS",
        b"\xff\xfb",
        b"\x1a\x45\xdf\xa3",
        b"FORM",
        b"RIFF",
        b"\xff",
        b"caff",
        b".snd",
        b"RIFF    AVI ",
    ],
)
def test_other_bytes_behind_a_known_beginning(tmp_path, magic):
    rng = np.random.default_rng(1)
    for length in [0, 1, 5, 9, 40, 3000]:
        (tmp_path / "x").write_bytes(magic + rng.bytes(length))
        assert isinstance(missing_end(tmp_path / "x"), str | None)
