"""Feature windows are centred on their video frames to the sample; rows equal those of librosa and python_speech_features."""

import librosa
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audio import log_mel as log_mel_module
from audio.features import FeatureConfig, extract_features
from audio.log_mel import log_mel
from audio.mfcc import mfcc
from audio.timing import frames_of_samples
from audio.waveform import Waveform

KINDS = ("logmel", "mfcc")
MFCC = {"hop": 160, "n_filters": 26, "n_coefficients": 12, "lifter": 22, "preemphasis": 0.97}


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def impulse(samples, at):
    samples = np.zeros(samples, np.float32)
    samples[at] = 1
    return samples


@given(st.integers(1600, 40000), st.sampled_from(KINDS))
@settings(max_examples=40, deadline=None)
def test_one_window_per_frame(samples, kind):
    config = FeatureConfig(kind=kind)
    values = extract_features(Waveform(noise(samples)), config).values
    assert (
        values.shape == (frames_of_samples(samples), config.rows, config.width) and values.dtype == np.float32
    )
    assert np.isfinite(values).all()


@given(st.integers(0, 15999), st.sampled_from([80, 160, 320, 640]), st.sampled_from([120, 200, 280, 360]))
@settings(max_examples=60, deadline=None)
def test_an_impulse_is_loudest_in_its_own_frame_and_row(at, hop, context_ms):
    assume(
        2 <= at % hop <= hop - 3
    )  # half-way between two rows both are equal, and pre-emphasis is two samples long
    config = FeatureConfig(hop=hop, context_ms=context_ms, normalise="none")
    values = extract_features(Waveform(impulse(16000, at)), config).values
    own_rows = slice((config.rows - config.rows_per_frame) // 2, (config.rows + config.rows_per_frame) // 2)
    loudness_TR = values[:, own_rows].sum(2)
    assert loudness_TR.max(1).argmax() == at // 640
    assert loudness_TR.reshape(-1).argmax() == at // hop


@pytest.mark.parametrize("kind", KINDS)
def test_the_block_size_does_not_change_the_features(kind, monkeypatch):
    one_block = extract_features(Waveform(noise(32000)), FeatureConfig(kind=kind)).values
    monkeypatch.setattr(log_mel_module, "BLOCK", 37)
    parts = extract_features(Waveform(noise(32000)), FeatureConfig(kind=kind)).values
    np.testing.assert_allclose(parts, one_block, atol=1e-4)


def test_the_window_is_centred_on_sample_640_t_plus_320():
    # Reversing the sound about the frame's centre reverses the window's rows (magnitudes, symmetric analysis window).
    samples, frame, config = noise(16000), 12, FeatureConfig(preemphasis=0.0, normalise="none")
    centre = 640 * frame + 320
    mirrored = np.zeros_like(samples)
    mirrored[centre - 5000 : centre + 5001] = samples[centre - 5000 : centre + 5001][::-1]
    samples = np.where(np.abs(np.arange(16000) - centre) <= 5000, samples, 0).astype(np.float32)
    forward = extract_features(Waveform(samples), config).values[frame]
    reversed_ = extract_features(Waveform(mirrored), config).values[frame]
    np.testing.assert_allclose(forward, reversed_[::-1], atol=1e-3)


def test_an_impulse_changes_the_mfcc_rows_whose_window_contains_it():
    at = 6400 + 80  # centre of row 40
    rows = mfcc(impulse(16000, at), **MFCC)
    assert np.flatnonzero(np.abs(rows).max(1) > 1).tolist() == [39, 40, 41]  # 400-sample windows every 160


def test_a_shift_of_one_frame_shifts_the_features_by_one_frame():
    samples = np.pad(noise(16000), (3200, 3200))
    for kind in KINDS:
        config = FeatureConfig(kind=kind, normalise="none")
        a = extract_features(Waveform(samples), config).values
        b = extract_features(Waveform(np.roll(samples, 640)), config).values
        np.testing.assert_allclose(a[:-1], b[1:], atol=1e-4)


def test_neighbouring_windows_overlap_by_all_but_four_rows():
    values = extract_features(Waveform(noise(16000)), FeatureConfig()).values
    np.testing.assert_array_equal(values[:-1, 4:], values[1:, :-4])


def test_the_number_of_video_frames_decides_the_length():
    samples = noise(16000)
    config = FeatureConfig(normalise="none")
    short, full, long = (extract_features(Waveform(samples), config, n).values for n in (20, None, 40))
    assert (len(short), len(full), len(long)) == (20, 25, 40)
    np.testing.assert_allclose(short[:16], full[:16], atol=1e-5)
    np.testing.assert_allclose(long[:25], full, atol=1e-5)


def test_silence_is_finite_and_constant():
    for kind in KINDS:
        for normalise in ("clip", "fixed", "none"):
            values = extract_features(
                Waveform(np.zeros(8000, np.float32)), FeatureConfig(kind=kind, normalise=normalise)
            )
            assert np.isfinite(values.values).all() and np.ptp(values.values, axis=(0, 1)).max() == 0


def test_clip_normalisation_removes_loudness_and_microphone():
    samples = noise(32000) * np.repeat(np.abs(noise(50, 1)) * 10 + 0.1, 640)
    values = extract_features(Waveform(samples), FeatureConfig()).values
    clip_rows = values[:, 12:16].reshape(-1, 80)
    np.testing.assert_allclose(clip_rows.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(clip_rows.std(0), 1, atol=1e-3)
    quieter = extract_features(Waveform(samples * np.float32(0.05)), FeatureConfig()).values
    np.testing.assert_allclose(values, quieter, atol=1e-2)


def test_log_mel_rows_equal_librosas():
    samples = noise(16000)
    rows = log_mel(samples, 160, 800, 80, 55, 7600, preemphasis=0.0, dynamic_range_db=60.0)
    # librosa centres row j on sample 160 j; without the first 80 samples both are centred on 160 j + 80.
    spectrum = np.abs(librosa.stft(samples[80:], n_fft=800, hop_length=160, pad_mode="constant")) / 400
    mel = librosa.filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600, norm=None) @ spectrum
    np.testing.assert_allclose(rows[3:96], np.log(mel.T)[3:96], atol=1e-3)


def test_mfcc_rows_equal_those_of_python_speech_features():
    # python_speech_features 0.6: mfcc(x[40:], 16000, winstep=0.01)[[9, 49, 89], 1:], whose row j - 1 is our row j.
    n = np.arange(16000)
    x = 0.3 * np.sin(2 * np.pi * n * (200 + n / 16) / 16000) + 0.2 * np.sin(2 * np.pi * 0.11 * n)
    x = (x + 0.05 * np.sin(n**2 % 1237)).astype(np.float32)
    golden = [
        [-13.31, -9.191, -15.425, 4.51, -21.417, -51.126, -26.501, 19.72, 3.057, -12.835, 13.398, 32.833],
        [-19.293, -25.112, -29.99, 22.941, 27.844, -14.833, -26.466, 1.79, -3.336, -2.879, 13.577, 10.925],
        [-22.17, -21.99, -0.542, 32.575, -10.761, -32.397, 12.531, 28.111, -18.664, -19.74, 14.53, 9.499],
    ]
    np.testing.assert_allclose(mfcc(x, **MFCC)[[10, 50, 90]], golden, atol=2e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [("hop", 150), ("hop", 0), ("context_ms", 290), ("context_ms", 20),
     ("context_ms", 0), ("fmax", 9000.0), ("n_coefficients", 26), ("preemphasis", 1.0), ("n_fft", 801)],
)  # fmt: skip
def test_a_wrong_config_is_refused(field, value):
    with pytest.raises(ValueError, match=f"audio.*{field.split('_')[0]}"):
        FeatureConfig(**{field: value})


def test_configs_are_hashable_by_value():
    assert hash(FeatureConfig()) == hash(FeatureConfig()) and FeatureConfig() != FeatureConfig(hop=320)
