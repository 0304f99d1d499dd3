"""Clip scores of three rows with known differences, for tests of the report and its tables."""

from pathlib import Path

import numpy as np

from metrics.report.report_files import write_report
from metrics.scoring.row_accumulator import MEANS, ClipScore
from metrics.scoring.score_clips import summarise


def score(row: str, clip: str, speaker: str, value: float, split: str = "tuned") -> ClipScore:
    figures = dict.fromkeys(MEANS) | {"psnr": value, "ssim": 0.5, "lmd": value / 10, "mouth_corr": 0.5}
    return ClipScore(row, split, clip, 75, figures, np.zeros(75), np.zeros(75), speaker)


def scores(bonus: float = 2.0, speakers=("s2", "s4")) -> list[ClipScore]:
    clip_scores = []
    for who, base in zip(speakers, (15.0, 25.0), strict=True):
        for number in range(3):
            clip = f"{who}/{number}"
            clip_scores.append(score("stage1_only", clip, who, base + number))
            clip_scores.append(score("full", clip, who, base + number + bonus))
            clip_scores.append(score("static", clip, who, base))
    return clip_scores


def report(path: Path, **more) -> dict:
    clip_scores = scores(**more)
    return write_report(path, summarise(clip_scores), {"judge": "ab" * 32}, 1.0, clip_scores, bases=["full"])
