"""The row `reencoded` and what the report says about it."""

import numpy as np
import pytest
from metric_scores import score
from scipy.ndimage import gaussian_filter

from metrics.measures.sharpness import Sharpness
from metrics.report.paired_differences import clip_records
from metrics.report.reencoding_moves import reencoding_lines, reencoding_moves
from metrics.scoring.reencoding import reencoded


def test_reencoded_frames_show_the_same_with_less_detail():
    smooth = gaussian_filter(np.random.default_rng(0).uniform(0, 255, (256, 256, 3)), (6, 6, 0)) * 4 - 380
    noise = np.random.default_rng(1).normal(0, 6, (9, 256, 256, 1))
    frames = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    again = np.stack(list(reencoded(iter(frames))))
    assert again.shape == frames.shape
    assert np.abs(again.astype(float) - frames).mean() < 8
    meter = Sharpness()
    for frame in again:
        meter.update(frame)
    assert (meter.values(frames[0])["face_sharpness"] or 1) < 0.5  # fine noise is what coding removes first


def test_moves_are_paired_differences():
    records = clip_records(
        [
            *(score("full", clip, "s", 20.0) for clip in ("a", "b")),
            *(score("reencoded", clip, "s", 19.0) for clip in ("a", "b")),
        ]
    )
    for record, value in zip(records, (5.0, 7.0, 4.5, 6.0), strict=True):
        record["figures"] = record["figures"] | {"lse_c": value, "mouth_sharpness": value / 5}
    (move,) = reencoding_moves(records, "full")
    assert list(move["moved"]) == [
        "mouth_corr",
        "lse_c",
        "mouth_sharpness",
    ]  # psnr is neither sync nor sharpness
    assert move["moved"]["lse_c"]["mean"] == pytest.approx(-0.75) and move["moved"]["lse_c"]["n_clips"] == 2
    assert reencoding_lines([move]) == [
        "H.264 at CRF 28 moves full (tuned) by: mouth_corr +0, lse_c -0.75, mouth_sharpness -0.15"
    ]
    assert reencoding_moves(records[:2], "full") == []
