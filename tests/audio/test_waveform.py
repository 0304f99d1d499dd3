"""Any sound file becomes 16 kHz mono; any other file is refused with a message of one sentence that names it."""

import tracemalloc

import numpy as np
import pytest
import soundfile

from audio.waveform import AudioError, Waveform, blocks_to_mono16k, read_waveform, to_mono16k, write_wav
from encoders.footage.video_reader import read_audio


def tone(seconds, rate, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 25000, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channel_count_gives_the_same_tone(tmp_path, rate, channels):
    path = tmp_path / "a tone [x=1].wav"
    soundfile.write(path, np.repeat(tone(1.0, rate)[:, None], channels, 1), rate, subtype="FLOAT")
    waveform = read_waveform(path)
    assert waveform.rate == 16000 and waveform.samples.shape == (16000,)
    assert waveform.samples.dtype == np.float32
    middle = slice(
        1600, -1600
    )  # without the resampler's edges; the tone is in phase, so there is no delay at any rate
    np.testing.assert_allclose(waveform.samples[middle], tone(1.0, 16000)[middle], atol=2e-3)


@pytest.mark.parametrize(
    ("subtype", "atol"),
    [("PCM_U8", 1e-2), ("PCM_16", 1e-4), ("PCM_24", 1e-6), ("PCM_32", 1e-6), ("DOUBLE", 1e-6)],
)
def test_any_sample_width(tmp_path, subtype, atol):
    soundfile.write(tmp_path / "x.wav", tone(0.5, 16000), 16000, subtype=subtype)
    np.testing.assert_allclose(read_waveform(tmp_path / "x.wav").samples, tone(0.5, 16000), atol=atol)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_compressed_files(tmp_path, suffix):
    soundfile.write(tmp_path / f"x.{suffix}", tone(1.0, 16000), 16000)
    samples = read_waveform(tmp_path / f"x.{suffix}").samples
    assert np.corrcoef(samples[4000:12000], tone(1.0, 16000)[4000:12000])[0, 1] > 0.99


def test_length_is_the_rounded_ratio():
    for count in (4411, 44099, 44101, 50003):
        assert len(to_mono16k(np.zeros(count), 44100).samples) == round(count * 16000 / 44100)


def test_integers_are_scaled_and_channels_averaged():
    samples = np.full((3200, 2), 16384, np.int16)
    samples[:, 1] = 0
    np.testing.assert_allclose(to_mono16k(samples, 16000).samples, 0.25)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ([1, -1], 1),  # the mean is silent
        ([0.5, -0.55], -0.55),  # nearly so
        ([1, 0], 0.5),  # one channel is silent
        ([1, -0.7], 0.15),  # the mean has more than a tenth of the loudest channel
        ([0, 1, 0, 0, 0, 0], 1 / 6),
        ([0, 0], 0),
    ],
)
def test_channels_that_cancel_each_other_give_the_loudest(tmp_path, factors, expected):
    samples = tone(0.5, 16000)[:, None] * factors
    np.testing.assert_allclose(to_mono16k(samples, 16000).samples, expected * tone(0.5, 16000), atol=1e-6)
    soundfile.write(tmp_path / "x.wav", samples, 16000, subtype="FLOAT")
    np.testing.assert_allclose(
        read_waveform(tmp_path / "x.wav").samples, expected * tone(0.5, 16000), atol=1e-6
    )


def test_silence_is_allowed(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros(16000), 16000)
    assert not read_waveform(tmp_path / "x.wav").samples.any()


def broken_files(folder):
    def sound(name, samples):
        soundfile.write(folder / name, samples, 16000, subtype="FLOAT")
        return folder / name

    def raw(name, content):
        (folder / name).write_bytes(content)
        return folder / name

    (folder / "folder.wav").mkdir()
    bad = tone(1.0, 16000)
    return {
        "does not exist": [folder / "nobody.wav"],
        "is empty": [raw("empty.wav", b"")],
        "is a folder": [folder / "folder.wav"],
        "cannot be read as sound": [raw("text.wav", b"not sound at all\n" * 50), raw("header.wav", b"RIFF")],
        "no samples": [sound("none.wav", np.zeros(0))],
        "too short": [sound("short.wav", bad[:800])],
        "NaN or infinite": [
            sound("nan.wav", np.where(np.arange(16000) == 9, np.nan, bad)),
            sound("inf.wav", np.where(np.arange(16000) == 9, np.inf, bad)),
        ],
    }


def test_each_broken_file_is_named_in_one_sentence(tmp_path):
    for reason, paths in broken_files(tmp_path).items():
        for path in paths:
            with pytest.raises(AudioError, match=reason) as caught:
                read_waveform(path)
            message = str(caught.value)
            assert str(path) in message and "\n" not in message


def wav_bytes(folder, **options):
    soundfile.write(folder / "whole.wav", tone(2.0, 16000), 16000, **options)
    return (folder / "whole.wav").read_bytes()


@pytest.mark.parametrize("options", [{"subtype": "PCM_16"}, {"subtype": "FLOAT"}, {"format": "WAVEX"}])
def test_a_cut_wav_is_refused(tmp_path, options):
    content, path = wav_bytes(tmp_path, **options), tmp_path / "half.wav"
    start = content.index(b"data") + 8
    path.write_bytes(content[: start + (len(content) - start) // 2])
    with pytest.raises(AudioError, match=r"half\.wav is cut off: it holds 1\.00 s of the 2\.00 s") as caught:
        read_waveform(path)
    assert "export or copy it again" in str(caught.value) and "\n" not in str(caught.value)
    path.write_bytes(content[:start])
    with pytest.raises(AudioError, match=r"holds 0\.00 s of the 2\.00 s"):
        read_waveform(path)


@pytest.mark.parametrize("stated", [0xFFFFFFFF, 0xFFFFFFDB, 0x7FFFF000, 0x80000000, 64000 + 44])
def test_a_stream_without_a_length_is_accepted(tmp_path, stated):
    content = bytearray(wav_bytes(tmp_path, subtype="PCM_16"))
    place = content.index(b"data") + 4
    content[place : place + 4] = stated.to_bytes(4, "little")
    (tmp_path / "stream.wav").write_bytes(content)
    assert read_waveform(tmp_path / "stream.wav").seconds == 2


def test_chunks_before_and_after_the_sound_are_passed_over(tmp_path):
    content = wav_bytes(tmp_path, subtype="PCM_16")
    start = content.index(b"data")
    note = b"note" + (5).to_bytes(4, "little") + b"12345\0"  # an odd length is followed by one more byte
    (tmp_path / "x.wav").write_bytes(content[:start] + note + content[start:] + note)
    assert read_waveform(tmp_path / "x.wav").seconds == 2


@pytest.mark.parametrize("read", [read_waveform, read_audio])
def test_a_long_sound_takes_little_more_memory_than_its_result(tmp_path, read):
    noise = 0.1 * np.random.default_rng(0).standard_normal((48000, 2))
    with soundfile.SoundFile(tmp_path / "x.wav", "w", 48000, 2) as file:
        for _ in range(60):
            file.write(noise)
    tracemalloc.start()
    waveform = read(tmp_path / "x.wav")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert waveform.samples.shape == (60 * 16000,)
    assert peak < 2 * waveform.samples.nbytes + 16e6  # the whole of it as float64 has 46 MB


def test_blocks_give_what_the_whole_gives():
    sound = np.random.default_rng(0).standard_normal((2, 44100)) * 0.1
    blocks = [sound[:, :20000], sound[:, 20000:20001], sound[:, 20001:]]
    read = blocks_to_mono16k(lambda: ((44100, block) for block in blocks))
    np.testing.assert_array_equal(read.samples, to_mono16k(sound.T, 44100).samples)
    # Channels that cancel each other are noticed over all blocks; where their number changes, each is mixed by itself.
    opposed = [np.stack([block[0], -1.01 * block[0]]) for block in blocks]
    read = blocks_to_mono16k(lambda: ((16000, block) for block in opposed))
    np.testing.assert_allclose(read.samples, -1.01 * sound[0], atol=1e-6)
    read = blocks_to_mono16k(lambda: iter([(16000, opposed[0]), (16000, blocks[2][:1])]))
    np.testing.assert_allclose(read.samples[:20000], -1.01 * sound[0, :20000], atol=1e-6)
    np.testing.assert_allclose(read.samples[20000:], sound[0, 20001:], atol=1e-6)


def test_write_and_read_back(tmp_path):
    waveform = Waveform(tone(0.3, 16000).astype(np.float32))
    write_wav(tmp_path / "x.wav", waveform)
    np.testing.assert_allclose(read_waveform(tmp_path / "x.wav").samples, waveform.samples, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["x.wav"]


def test_a_waveform_is_float32_mono():
    with pytest.raises(ValueError, match="float32"):
        Waveform(np.zeros((10, 2), np.float32))
