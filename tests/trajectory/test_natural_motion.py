"""The process of natural motion: its statistics, its dependence on speech, its fit to tracks that it made itself."""

import json
from dataclasses import replace

import numpy as np
import pytest

from audio.timing import FPS, RATE
from audio.waveform import Waveform
from stylegan2.weights import WeightsError
from trajectory.motion.motion_config import MotionConfig
from trajectory.motion.motion_fit import (
    CORNERS,
    Observed,
    expected_periodogram,
    fit_blinks,
    fit_motion,
    jitter_like,
    periodogram,
)
from trajectory.motion.natural_motion import (
    ASSET,
    LONGEST,
    SHORTEST,
    blink_curve,
    damped,
    load_natural_motion,
    speech_activity,
)
from trajectory.motion.tracks import POSE_AXES

MODEL = load_natural_motion()
PITCH = POSE_AXES.index("pitch")


def speech(seconds: float, talking: slice | None = None, seed: int = 0) -> Waveform:
    """Noise, in a part of it only (in seconds) if `talking` is given."""
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    if talking is not None:
        quiet = np.ones(len(samples), bool)
        quiet[int(talking.start * RATE) : int(talking.stop * RATE)] = False
        samples[quiet] *= 1e-4
    return Waveform(samples.astype(np.float32))


def blink_starts(lids: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(np.concatenate([[False], lids > 0]).astype(int)) == 1)


def test_a_seed_determines_the_track_and_a_longer_speech_only_continues_it():
    one, again, other = (MODEL.draw(speech(4), 100, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.pose, again.pose)
    np.testing.assert_array_equal(one.lids, again.lids)
    assert np.abs(one.pose - other.pose).max() > 0.1
    shorter = MODEL.sway(np.ones(50), 3)
    np.testing.assert_allclose(MODEL.sway(np.ones(80), 3)[:50], shorter)


def test_damped_noise_has_unit_variance_and_the_expected_periodogram():
    noise = damped(np.random.default_rng(0).standard_normal((200_000,)), 0.4)
    assert noise.std() == pytest.approx(1, abs=0.03)
    windows = noise.reshape(-1, 100)
    ratio = periodogram(windows).mean(0)[:12] / expected_periodogram(0.4, 100)[:12]
    np.testing.assert_allclose(ratio, 1, atol=0.15)
    np.testing.assert_allclose(expected_periodogram(None, 75), 1)


def test_motion_is_smooth():
    pose = MODEL.draw(speech(60), 1500, 0).pose
    assert (np.abs(np.diff(pose, axis=0)).max(0) < [1.0, 1.0, 0.3, 0.02, 0.02, 0.01]).all()
    share_above = [p[3 * 60 :].sum() / p.sum() for p in periodogram(pose.T)]
    assert max(share_above) < 0.03  # of the power, above 3 Hz


def test_the_head_moves_less_in_silence_and_returns_to_rest():
    talking, silent = (
        np.stack([MODEL.draw(sound, 250, seed).pose for seed in range(20)])
        for sound in (speech(10), Waveform(np.zeros(10 * RATE, np.float32)))
    )
    assert np.abs(np.diff(silent, axis=1)).mean() < 0.75 * np.abs(np.diff(talking, axis=1)).mean()
    assert np.abs(silent.mean((0, 1)))[PITCH] < 0.2 < 0.6 < talking.mean((0, 1))[PITCH]
    after = np.stack([MODEL.draw(speech(12, slice(0, 6)), 300, seed).pose for seed in range(20)])
    assert abs(after[:, 225:, PITCH].mean()) < 0.25 < after[:, 25:125, PITCH].mean()


def test_blinks_have_natural_rates_durations_and_spacing():
    minutes = 12
    rates = {}
    for name, sound in {"speech": speech(60), "pause": Waveform(np.zeros(60 * RATE, np.float32))}.items():
        lids = [MODEL.draw(sound, 60 * FPS, seed).lids for seed in range(minutes)]
        starts = [blink_starts(track) for track in lids]
        rates[name] = sum(map(len, starts)) / minutes
        assert min(np.diff(s).min() for s in starts) >= MODEL.blink.refractory * FPS - 1
        ends = [np.flatnonzero(np.diff(np.concatenate([t > 0, [False]]).astype(int)) == -1) for t in lids]
        seconds = np.concatenate([e - s + 1 for s, e in zip(starts, ends, strict=True)]) / FPS
        assert seconds.min() >= 0.1 and seconds.max() <= LONGEST + 1 / FPS
        assert np.median(seconds) == pytest.approx(MODEL.blink.duration, abs=0.05)
        assert np.median([t[s : s + 6].max() for t, ss in zip(lids, starts, strict=True) for s in ss]) > 0.9
    assert 10 < rates["speech"] < rates["pause"] < 25
    assert rates["pause"] > 1.2 * rates["speech"]


def test_a_blink_is_closed_once_and_open_outside():
    times = np.linspace(-0.1, 0.5, 601)
    curve = blink_curve(times, 0.3, 0.4)
    assert curve.max() == 1 and times[curve.argmax()] == pytest.approx(0.12)
    assert not curve[(times < 0) | (times > 0.3)].any()
    assert (curve >= 0.5).mean() * 0.6 == pytest.approx(0.15, abs=0.003)


def test_activity_follows_speech_at_any_loudness_and_is_0_in_silence():
    sound = speech(6, slice(2, 4))
    activity = speech_activity(sound, 150)
    assert activity[60:90].min() > 0.9 and max(activity[:30].max(), activity[120:].max()) < 0.01
    np.testing.assert_allclose(speech_activity(Waveform(0.1 * sound.samples), 150), activity, atol=0.01)
    assert not speech_activity(Waveform(1e-4 * sound.samples), 150).any()
    assert len(speech_activity(sound, 170)) == 170 and len(speech_activity(sound, 90)) == 90


def test_the_fit_recovers_the_process_that_made_its_tracks():
    activities = np.tile(speech_activity(speech(3, slice(1, 2)), 75), (300, 1))
    truth = replace(MODEL, silence=0.3, level=float(np.sqrt(np.square(0.3 + 0.7 * activities).mean())))
    tracks = [truth.sway(a, seed) + truth.coupling * a[:, None] for seed, a in enumerate(activities)]
    jitter = np.tile([[0.0, 0.3]], (6, 1)) * truth.amplitude.max(1)[:, None]
    openness = np.full((300, 75), 0.3)
    for number, row in enumerate(openness[:60]):
        row -= 0.2 * blink_curve(np.arange(75) / FPS - 1 - 0.0007 * number, 0.28, 0.4)
    fitted, jitter_found = fit_motion(
        Observed(np.stack(tracks) + jitter_like(jitter, 300, 75), activities, openness)
    )
    power = np.array([expected_periodogram(corner, 75).sum() for corner in CORNERS])  # within windows
    spread, expected = (np.sqrt(np.square(m.amplitude) @ power) for m in (fitted, truth))
    np.testing.assert_allclose(spread, expected, rtol=0.15)
    np.testing.assert_allclose(fitted.coupling, truth.coupling, rtol=0.15)
    np.testing.assert_allclose(jitter_found[:, 1], jitter[:, 1], rtol=0.2)
    np.testing.assert_allclose(fitted.correlation, truth.correlation, atol=0.15)
    assert fitted.silence == pytest.approx(0.3, abs=0.15)
    assert fitted.blink.duration == pytest.approx(0.28, abs=0.04)


def test_too_little_to_fit_is_said():
    with pytest.raises(ValueError, match="0 blinks"):
        fit_blinks(np.full((3, 75), 0.3))
    with pytest.raises(ValueError, match="too short"):
        fit_motion(Observed(np.zeros((2, 20, 6)), np.zeros((2, 20)), np.ones((2, 20))))


def test_a_model_is_the_same_after_saving_and_another_file_is_refused(tmp_path):
    MODEL.save(tmp_path / "m.json", {"clips": 1})
    again = load_natural_motion(tmp_path / "m.json")
    np.testing.assert_array_equal(again.amplitude, MODEL.amplitude)
    assert again.blink == MODEL.blink
    content = json.loads(ASSET.read_text())
    for broken in (
        {},
        [],
        content | {"axes": ["yaw"]},
        content | {"silence": 2},
        content | {"coupling": [1]},
    ):
        (tmp_path / "x.json").write_text(json.dumps(broken))
        with pytest.raises(WeightsError, match=r"x\.json is no model of natural motion"):
            load_natural_motion(tmp_path / "x.json")
    with pytest.raises(WeightsError, match=r"absent\.json"):
        load_natural_motion(tmp_path / "absent.json")


def test_embedded_limits_of_blinks_hold():
    assert 0.1 <= SHORTEST <= MODEL.blink.duration <= LONGEST <= 0.4


@pytest.mark.parametrize(
    "values", [{"gain": -0.1}, {"gain": float("nan")}, {"gain": 6}, {"seed": -1}, {"clip": "x.mp4"}]
)
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match=f"motion.{next(iter(values))}"):
        MotionConfig(**values)
