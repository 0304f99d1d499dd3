"""Known errors of published evaluation scripts: each test reproduces the error and checks that our measure is free of
it.
"""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import MetricsConfig
from encoders.features.perceptual import load_perceptual
from encoders.lmd import landmark_distance, mouth_distance
from metrics.measures.fid import Gaussian, frechet_distance, frechet_of
from metrics.measures.kid import kid
from metrics.measures.landmark_figures import sequence_figures
from metrics.measures.psnr_ssim import psnr, ssim
from metrics.report.report_files import COLUMNS
from metrics.scoring.row_accumulator import MEANS, ClipScore
from metrics.scoring.score_clips import summarise
from scripts.stages.evaluators import distance_columns
from stylegan2.images import to_tensor
from stylegan2.public.catalogue import CATALOGUE, FOLDER

few = settings(max_examples=20, deadline=None)


def points(seed: int, frames: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(60, 200, (1, 68, 2)) + rng.normal(0, 2, (frames, 68, 2))


def gaussian(x: np.ndarray) -> Gaussian:
    result = Gaussian()
    result.update(x)
    return result


# ------------------------------------------------------------------------------------------------------ pictures


def test_psnr_in_colour_detects_a_wrong_colour():
    """ATVGnet's script takes PSNR in grey and SSIM in colour; here both are in colour."""
    true = np.full((32, 32, 3), (100, 100, 100), np.uint8)
    green = np.full((32, 32, 3), (159, 70, 100), np.uint8)  # as bright: 0.299 x 59 = 0.587 x 30
    grey = [(x @ np.array([0.299, 0.587, 0.114])).round() for x in (true, green)]
    assert np.array_equal(grey[0], grey[1])  # the naive PSNR: infinite
    assert psnr(green, true) == pytest.approx(10 * np.log10(255**2 / ((59**2 + 30**2) / 3)))
    assert ssim(green, true) < 0.95


def test_growing_blur_is_never_rewarded_by_the_perceptual_distance():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    true = cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC)
    blurred = [true, *(cv2.GaussianBlur(true, (0, 0), sigma) for sigma in (1.0, 2.0, 4.0, 8.0))]
    distance = load_perceptual("alex")
    with torch.inference_mode():
        x, same = to_tensor(np.stack(blurred)), to_tensor(np.stack([true] * len(blurred)))
        there, back = distance(x, same).tolist(), distance(same, x).tolist()
        package = distance.network(x, same).flatten().tolist()
    assert there == sorted(there) and there[0] == pytest.approx(0, abs=1e-6) and there[1] > 0
    assert there == pytest.approx(back, rel=1e-4)  # symmetric
    assert there == pytest.approx(
        package, rel=1e-5, abs=1e-9
    )  # which runs the trunk on both images each time


def test_the_perceptual_distance_is_named_by_network_and_version(tmp_path, monkeypatch):
    """Without LPIPS's weights the other distance has a column of its own."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert set(distance_columns(MetricsConfig())) == {"st_lpips_alex", "st_lpips_vgg"}
    (tmp_path / CATALOGUE["lpips_alex"].file).touch()
    assert set(distance_columns(MetricsConfig())) == {"lpips_alex", "st_lpips_vgg"}
    assert "0.1" in COLUMNS["lpips_alex"][0] and "not comparable" in COLUMNS["st_lpips_vgg"][0]


# ----------------------------------------------------------------------------------------------------- landmarks


def test_frames_that_are_far_off_are_not_dropped():
    """Scripts that leave out outlier frames give better figures to methods with large failures."""
    true, predicted = points(0), points(0)
    predicted[7] += 80 * np.random.default_rng(1).normal(size=(68, 2))
    each = landmark_distance(predicted, true)
    assert each[each <= 3 * np.median(each) + 1].mean() == 0  # the naive mean: 0
    figures = sequence_figures(predicted, true, np.ones(30, bool))
    assert figures["lmd"] == pytest.approx(each[7] / 30) and (figures["lmd_mouth"] or 0) > 1


@few
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_landmark_distances_are_symmetric_and_zero_for_the_same(a, b):
    x, y = points(a, 3), points(b, 3)
    for distance in (landmark_distance, mouth_distance):
        np.testing.assert_allclose(distance(x, y), distance(y, x))
        np.testing.assert_allclose(distance(x, x), 0, atol=1e-9)
        assert (distance(x, y) >= 0).all()


# ----------------------------------------------------------------------------------------------------------- FID


def test_the_mean_of_the_fids_of_batches_is_not_the_fid():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 400, 12))
    parts = [
        frechet_of(gaussian(a), gaussian(b), None)[0]
        for a, b in zip(x.reshape(20, 20, 12), y.reshape(20, 20, 12), strict=True)
    ]
    fid_of_all = frechet_of(gaussian(x), gaussian(y), None)[0]
    assert fid_of_all is not None and np.mean([part for part in parts if part is not None]) > 10 * fid_of_all


def test_few_frames_give_a_large_fid_but_not_a_large_kid():
    """Two samples of one 512-dimensional Gaussian: FID is far from 0 and falls with N alone, KID is about 0."""
    rng, fids = np.random.default_rng(0), {}
    for n in (96, 4000):
        x, y = rng.normal(size=(2, n, 512))
        fids[n] = frechet_of(gaussian(x), gaussian(y), None)[0] or 0.0
        assert abs(kid(x[:200], y[:200])) < 0.02
    assert fids[96] == pytest.approx(636, rel=0.05) and fids[4000] < 40


@few
@given(st.integers(0, 1000))
def test_the_frechet_distance_is_symmetric_and_zero_for_the_same(seed):
    rng = np.random.default_rng(seed)
    x, y = (gaussian(rng.normal(size=(20, 5)) @ rng.normal(size=(5, 5))) for _ in range(2))
    first, second = (x.mean, x.covariance), (y.mean, y.covariance)
    there, back = frechet_distance(*first, *second), frechet_distance(*second, *first)
    assert there == pytest.approx(back, rel=1e-6) and there > 0
    assert frechet_distance(*first, *first) == pytest.approx(
        0, abs=1e-4 * max(1.0, float(np.trace(x.covariance)))
    )


# --------------------------------------------------------------------------------------------------------- tables


@few
@given(st.permutations(range(9)))
def test_the_order_of_the_clips_changes_no_figure_and_no_interval(order):
    rng = np.random.default_rng(0)
    scores = []
    for number in range(9):
        figures = dict.fromkeys(MEANS) | {"psnr": rng.normal(25, 3), "lmd_mouth": rng.normal(2, 0.3)}
        scores.append(
            ClipScore("ours", "all", f"c{number}", 50, figures, np.zeros(1), np.zeros(1), f"s{number % 3}")
        )
    (one,), (other,) = summarise(scores), summarise([scores[i] for i in order])
    for name in ("psnr", "lmd_mouth"):
        assert one[name] == pytest.approx(other[name])
        for spread in ("interval", "interval_speakers"):
            assert one[spread][name] == pytest.approx(other[spread][name])
