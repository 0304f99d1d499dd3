"""Definitions of earlier papers, each with its error."""

import cv2
import numpy as np
import pytest
from drawn_face import random_face
from skimage.metrics import structural_similarity

from metrics.measures.legacy_definitions import LEGACY, LegacyFigures, lmd_sum, psnr_uint8, ssim_96
from metrics.measures.lip_motion import uncentred_mouth_distance
from metrics.measures.psnr_ssim import psnr, ssim

RNG = np.random.default_rng(0)


def test_legacy_landmark_distances():
    true = random_face(4)
    moved = true + np.array([3.0, 4.0])  # the whole head, by 5 px
    assert uncentred_mouth_distance(moved, true) == pytest.approx(5) and lmd_sum(
        moved, true
    ) == pytest.approx(0, abs=1e-9)
    wider = true.copy()
    wider[:, 48, 0] -= 4
    wider[:, 54, 0] += 4
    assert lmd_sum(wider, true) == pytest.approx(8) and uncentred_mouth_distance(
        wider, true
    ) == pytest.approx(8 / 20)


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


def test_legacy_ssim_is_higher_than_ssim():
    rng = np.random.default_rng(0)
    blobs = cv2.GaussianBlur(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8), (0, 0), 4).astype(float)
    true = np.clip(128 + 12 * (blobs - 128), 0, 255).astype(np.uint8)
    predicted = np.clip(true + rng.normal(0, 20, true.shape), 0, 255).astype(np.uint8)
    assert ssim_96(predicted, true) > 0.95 and ssim(predicted, true) < 0.7
    small = [cv2.resize(x, (96, 96), interpolation=cv2.INTER_AREA) for x in (predicted, true)]
    assert ssim_96(predicted, true) == pytest.approx(structural_similarity(*small, channel_axis=2), abs=0.01)


def test_figures_of_a_clip_are_means_over_its_frames():
    true = RNG.integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    figures, points = LegacyFigures(), random_face(3)
    assert figures.values(points, points) == {}
    for frame in true:
        figures.update(np.zeros_like(frame), frame)
    values = figures.values(points + 1, points)
    assert tuple(values) == tuple(LEGACY) and values["legacy_lmd_mean"] == pytest.approx(np.sqrt(2))
    black = np.zeros_like(true[0])
    assert values["legacy_psnr_uint8"] == pytest.approx(np.mean([psnr_uint8(black, x) for x in true]))
    assert figures.values(points[:0], points[:0])["legacy_lmd_sum"] is None
