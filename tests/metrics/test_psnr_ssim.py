"""PSNR and SSIM against scikit-image and closed forms."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from metrics.measures.psnr_ssim import mean_psnr, psnr, ssim

few = settings(max_examples=20, deadline=None)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    noisy = np.clip(true.astype(int) + rng.integers(-30, 31, true.shape), 0, 255).astype(np.uint8)
    return noisy, true


def test_closed_form_psnr():
    black = np.zeros((32, 32, 3), np.uint8)
    assert psnr(black, black + 1) == pytest.approx(20 * np.log10(255))
    assert psnr(black, black + 255) == pytest.approx(0)


def test_uint8_subtraction_does_not_wrap():
    """Unrelated noise: subtracting in uint8 wraps and looks like a fair prediction, the truth is below 8 dB."""
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 2, (64, 64, 3), dtype=np.uint8) * 255 for _ in range(2))
    naive = 10 * np.log10(255**2 / np.mean((a - b) ** 2))  # 0 - 255 wraps to 1, and 255**2 to 1
    assert naive > 40
    assert psnr(a, b) == pytest.approx(10 * np.log10(2), abs=0.1)
    assert psnr(a, b) == pytest.approx(psnr(b, a))


def test_one_identical_frame_does_not_make_the_mean_infinite():
    assert mean_psnr([20.0, float("inf"), 30.0]) == 25.0
    assert mean_psnr([float("inf")] * 2) is None


@pytest.mark.parametrize(
    "bad", [np.zeros((64, 64, 3)), np.zeros((64, 64), np.uint8), np.zeros((32, 32, 3), np.uint8)]
)
def test_wrong_frames_are_refused(pair, bad):
    for measure in (psnr, ssim):
        with pytest.raises(ValueError, match="frame"):
            measure(bad, pair[1])


@few
@given(st.integers(0, 1000), st.integers(12, 40), st.integers(12, 40))
def test_psnr_and_ssim_agree_with_scikit_image_and_are_symmetric(seed, height, width):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    b = np.clip(a + rng.integers(-60, 61, a.shape), 0, 255).astype(np.uint8)
    expected = structural_similarity(
        *(a, b), channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(a, b) == pytest.approx(expected, rel=1e-6)
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
