"""Lags, blinks, head, flicker, KID and the old definitions: closed forms, properties, and what naive versions miss."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from encoders.footage.align import CROP_SIZE
from encoders.geometry import correlation
from metrics.measures.head_motion import Flicker, blink_rate, blinks, head_pose, head_spread
from metrics.measures.kid import kid
from metrics.measures.landmark_figures import SEQUENCE, sequence_figures
from metrics.measures.legacy_definitions import lmd_mean, lmd_sum, psnr_uint8, ssim_96
from metrics.measures.lip_motion import LAGS, best_lag
from metrics.measures.psnr_ssim import psnr, ssim

RNG = np.random.default_rng(0)
few = settings(max_examples=20, deadline=None)


def smooth_noise(n: int, seed: int) -> np.ndarray:
    return np.convolve(np.random.default_rng(seed).normal(size=n + 4), np.ones(5) / 5, mode="valid")


def face(n: int) -> np.ndarray:
    points = np.tile(np.random.default_rng(1).uniform(60, 200, (68, 2)), (n, 1, 1))
    points[:, 36:42], points[:, 42:48] = (88, 110), (168, 110)
    for first in (36, 42):  # six points of an eye 20 px wide and 8 px open
        points[:, first : first + 6] += np.array([(-10, 0), (-4, -4), (4, -4), (10, 0), (4, 4), (-4, 4)])
    return points


# ----------------------------------------------------------------------------------------------------- lag


@few
@given(st.integers(-LAGS, LAGS), st.integers(0, 1000))
def test_a_shift_of_k_frames_is_found_as_k(k, seed):
    long = smooth_noise(120, seed)
    true, late = long[20:100], long[20 - k : 100 - k]
    value, lag = best_lag(late, true)
    assert lag == k and value == pytest.approx(1)


def test_the_correlation_at_the_best_lag_alone_is_blind():
    long = smooth_noise(120, 3)
    assert best_lag(long[10:90], long[15:95]) == (pytest.approx(1), 5)
    assert correlation(long[10:90], long[15:95]) < 0.9
    assert best_lag(np.full(50, 0.2), smooth_noise(50, 1)) == (0.0, None)
    assert best_lag(long[:3], long[:3])[1] == 0  # at most half of a short clip is shifted away


@few
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_correlation_is_symmetric_and_bounded(a, b):
    x, y = smooth_noise(40, a), smooth_noise(40, b)
    assert correlation(x, y) == pytest.approx(correlation(y, x))
    assert -1 <= correlation(x, y) <= 1


# ------------------------------------------------------------------------------------------------ blinks, head


def test_blinks_are_counted_against_the_clips_own_openness():
    openness = np.full(100, 0.2)
    openness[10:14] = openness[50:53] = 0.05
    openness[70] = 0.05  # one frame is the judge's jitter
    openness[:2] = 0.05  # not opened before
    assert blinks(openness) == 2
    assert blinks(np.full(100, 0.1)) == 0  # narrow eyes are not closed


def test_blink_rate_of_landmarks():
    points = face(100)
    for eye in (slice(36, 42), slice(42, 48)):
        points[20:24, eye, 1] = 110
    assert blink_rate(points) == pytest.approx(60 * 25 / 100)


def test_head_motion_in_closed_form():
    still, swing = face(50), face(50)
    swing[:, :, 0] += 8 * np.sin(np.arange(50) * 2 * np.pi / 25)[:, None]
    assert head_spread(head_pose(still)) == pytest.approx(0, abs=1e-12)
    assert head_spread(head_pose(swing)) == pytest.approx(8 / 80 / np.sqrt(2))
    assert head_spread(head_pose(swing) - head_pose(swing)) == 0


def test_the_crop_that_follows_the_head_does_not_hide_its_motion():
    points, shift = face(50), 20 * np.sin(np.arange(50) * 0.3)
    corners = np.array([[-0.5, -0.5], [-0.5, 255.5], [255.5, 255.5], [255.5, -0.5]]) * 256 / CROP_SIZE
    quads = np.tile(corners, (50, 1, 1))
    quads[:, :, 0] += shift[:, None]
    assert head_spread(head_pose(points)) == pytest.approx(0, abs=1e-12)
    assert head_spread(head_pose(points, quads)) == pytest.approx(shift.std() / 80)


def test_sequence_of_the_truth_and_of_no_frames():
    points = face(30) + RNG.normal(0, 1, (30, 68, 2))
    perfect = sequence_figures(points, points, np.ones(30, bool))
    assert tuple(perfect) == SEQUENCE and perfect["lmd"] == perfect["m_lmd"] == perfect["head_error"] == 0
    assert set(sequence_figures(points[:0], points[:0], np.ones(0, bool)).values()) == {None}


def test_over_the_inter_ocular_distance_the_resolution_does_not_matter():
    true = face(20)
    made = true + RNG.normal(0, 1, true.shape)
    small, large = (sequence_figures(made * k, true * k, np.ones(20, bool)) for k in (1, 4))
    for name in ("f_lmd", "m_lmd", "lmd_mouth_iod"):
        assert small[name] == pytest.approx(large[name])
    assert large["lmd"] == pytest.approx(4 * (small["lmd"] or np.nan))  # which is why px need a declared crop


# ------------------------------------------------------------------------------------------------------- flicker


def flicker_of(frames) -> float | None:
    meter = Flicker()
    meter.update(frames)
    return meter.value


def test_flicker():
    ramp = [np.full((8, 8, 3), 10 * t, np.uint8) for t in range(10)]
    assert flicker_of(ramp) == 0  # steady change is no flicker
    jump = [np.full((8, 8, 3), 100 + 6 * (t % 2), np.uint8) for t in range(10)]
    assert flicker_of(jump) == 12
    assert flicker_of([np.full((2, 2, 3), v, np.uint8) for v in (0, 255, 0)]) == 510  # uint8 would wrap to 2
    assert flicker_of(ramp[:2]) is None


# --------------------------------------------------------------------------------------------------------- image


@few
@given(st.integers(0, 1000), st.integers(12, 40), st.integers(12, 40))
def test_psnr_and_ssim_agree_with_scikit_image_and_are_symmetric(seed, height, width):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    b = np.clip(a + rng.integers(-60, 61, a.shape), 0, 255).astype(np.uint8)
    wanted = structural_similarity(
        *(a, b), channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(a, b) == pytest.approx(wanted, rel=1e-6)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255), rel=1e-9)
    assert ssim(a, b) == pytest.approx(ssim(b, a)) and psnr(a, b) == psnr(b, a)
    assert psnr(a, a) == np.inf and ssim(a, a) == pytest.approx(1)


@few
@given(st.integers(0, 1000))
def test_growing_blur_is_never_rewarded(seed):
    true = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    blurred = [cv2.GaussianBlur(true, (0, 0), sigma) for sigma in (0.4, 0.7, 1.2, 2.0)]
    for measure in (psnr, ssim):
        values = [measure(frame, true) for frame in blurred]
        assert values == sorted(values, reverse=True)


# --------------------------------------------------------------------------------------------------------- KID


def test_kid_against_a_loop_over_pairs():
    x, y = RNG.normal(size=(6, 3)), RNG.normal(0.5, 1, (5, 3))

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert kid(x, y) == pytest.approx(xx + yy - 2 * xy)
    assert kid(x, y) == pytest.approx(kid(y, x)) == pytest.approx(kid(x[::-1], y))
    with pytest.raises(ValueError, match="two frames"):
        kid(x[:1], y)


def test_kid_is_unbiased_where_fid_is_not():
    """Two samples of one distribution: KID scatters about 0 at any N, the biased version does not."""
    draws = [kid(*np.random.default_rng(s).normal(size=(2, 20, 16))) for s in range(60)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(60)


# ------------------------------------------------------------------------------------------------------- legacy


def test_legacy_landmark_distances():
    true = face(4)
    moved = true + np.array([3.0, 4.0])  # the whole head, by 5 px
    assert lmd_mean(moved, true) == pytest.approx(5) and lmd_sum(moved, true) == pytest.approx(0, abs=1e-9)
    wider = true.copy()
    wider[:, 48, 0] -= 4
    wider[:, 54, 0] += 4
    assert lmd_sum(wider, true) == pytest.approx(8) and lmd_mean(wider, true) == pytest.approx(8 / 20)


def test_legacy_psnr_wraps_as_the_old_script_did():
    """The mean of (a - b)^2 with both operations modulo 256, on grey frames: unrelated noise scores about 28 dB."""
    a, b = RNG.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    grey = [cv2.cvtColor(x, cv2.COLOR_RGB2GRAY).astype(int) for x in (a, b)]
    wrapped = ((((grey[0] - grey[1]) % 256) ** 2) % 256).mean()
    assert psnr_uint8(a, b) == pytest.approx(20 * np.log10(255 / np.sqrt(wrapped)))
    assert 26 < psnr_uint8(a, b) < 31 and psnr(a, b) < 9
    assert psnr_uint8(a, a) == 100
    sixteen = np.full((8, 8, 3), 16, np.uint8)
    assert psnr_uint8(sixteen, sixteen * 0) == 100  # 16 squared is 256, which is 0


def test_legacy_ssim_flatters():
    rng = np.random.default_rng(0)
    blobs = cv2.GaussianBlur(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8), (0, 0), 4).astype(float)
    true = np.clip(128 + 12 * (blobs - 128), 0, 255).astype(np.uint8)
    made = np.clip(true + rng.normal(0, 20, true.shape), 0, 255).astype(np.uint8)
    assert ssim_96(made, true) > 0.95 and ssim(made, true) < 0.7
    small = [cv2.resize(x, (96, 96), interpolation=cv2.INTER_AREA) for x in (made, true)]
    assert ssim_96(made, true) == pytest.approx(structural_similarity(*small, channel_axis=2), abs=0.01)
