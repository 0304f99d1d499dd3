"""Features of live sound equal those of the recording, whatever blocks it comes in, and come as early as stated."""

import numpy as np
import pytest
from live_stage1 import live_features_config, write_whisper

from audio.features import FeatureConfig, extract_features
from audio.live_features import live_features
from audio.speech_encoder import SpeechEncoderError, load_speech_encoder
from audio.waveform import AudioError, Waveform

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return live_features_config(write_whisper(tmp_path_factory.mktemp("whisper")))


def sound(samples):
    return (0.1 * np.random.default_rng(1).standard_normal(samples)).astype(np.float32)


def blocks_of(samples_S, longest=2000):
    rng, start = np.random.default_rng(2), 0
    while start < len(samples_S):
        stop = start + int(rng.integers(0, longest))
        yield samples_S[start:stop]
        start = stop


@pytest.mark.parametrize("samples", [1, 640, 641, 5000, 30011])
def test_live_sound_has_the_features_of_the_recording(features, samples):
    samples_S = sound(samples)
    frames = list(live_features(blocks_of(samples_S), features))
    whole = extract_features(Waveform(samples_S), features).values
    assert len(frames) == len(whole) == -(-samples // 640)
    np.testing.assert_allclose(np.stack([frame.window for frame in frames]), whole, atol=1e-5)
    own = np.concatenate([frame.samples for frame in frames])
    np.testing.assert_array_equal(own[:samples], samples_S)
    assert not own[samples:].any()


def test_a_frame_comes_as_soon_as_its_lookahead_is_there(features):
    """200 ms at most after the frame's end, and exactly that for one frame in three."""
    assert features.lookahead_ms == 200
    given, delays = 0, []

    def blocks():
        nonlocal given
        for block in np.split(sound(16000), 100):
            given += len(block)
            yield block

    for t, _ in enumerate(live_features(blocks(), features)):
        if given < 16000:
            delays.append((given - 640 * (t + 1)) / 16)
    assert len(delays) > 12 and max(delays) == 200


def test_whole_recordings_features_state_no_lookahead():
    whole = FeatureConfig(kind="encoder", encoder="x", hop=320, dims=32)
    assert whole.lookahead_ms is None and FeatureConfig().lookahead_ms is None
    assert FeatureConfig(normalise="none").lookahead_ms is None
    assert FeatureConfig(normalise="fixed").lookahead_ms == 120
    with pytest.raises(AudioError, match="whole recording"):
        next(live_features([sound(640)], whole))


@pytest.mark.parametrize(
    "wrong", [{"chunk_ms": 50}, {"past_ms": -20}, {"normalise": "clip"}, {"kind": "logmel", "hop": 160}]
)
def test_chunks_that_cannot_be_are_refused(wrong):
    settings = {"kind": "encoder", "encoder": "x", "hop": 320, "normalise": "none", "chunk_ms": 120}
    with pytest.raises(ValueError, match=r"audio\.(chunk_ms|kind)"):
        FeatureConfig(**settings | wrong)


def test_another_encoder_cannot_hear_in_chunks(features, monkeypatch):
    encoder = load_speech_encoder(features.encoder, "cpu")
    monkeypatch.setattr(encoder, "kind", "hubert")
    with pytest.raises(SpeechEncoderError, match="cannot hear in chunks"):
        extract_features(Waveform(sound(6400)), features)
