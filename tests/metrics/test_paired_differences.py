"""Paired differences between rows."""

import pytest
from metric_scores import scores

from metrics.report.paired_differences import clip_records, compare_rows
from metrics.scoring.score_clips import summarise


def test_paired_differences_are_tighter_than_differences_of_means():
    records = clip_records(scores())
    gaps = compare_rows(records, ["full"])
    assert [g["against"] for g in gaps] == ["stage1_only", "static"]
    gap = gaps[0]["differences"]["psnr"]
    assert gap["mean"] == pytest.approx(2) and gap["interval"] == pytest.approx((2, 2))
    assert gap["n_clips"] == 6 and gap["n_speakers"] == 2
    low, high = next(r for r in summarise(scores()) if r["name"] == "full")["interval"]["psnr"]
    assert high - low > 3  # clips differ far more than the methods do
