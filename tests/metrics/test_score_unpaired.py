"""Videos driven by other speech than their reference's, with a detector whose landmarks follow from the brightness."""

from typing import Any

import numpy as np
import pytest
import torch
from brightness_face import LEVELS, NOTHING, Brightness, Reader

from metrics.report.report_files import COLUMNS
from metrics.scoring import score_unpaired as module
from metrics.scoring.row_accumulator import MEANS, Judges
from metrics.scoring.score_unpaired import LEFT_OUT, UNPAIRED, score_unpaired
from metrics.scoring.score_videos import PairOptions, PairResult


def frames_of(levels) -> list[np.ndarray]:
    return [np.full((64, 64, 3), level, np.uint8) for level in levels]


def inception(x: torch.Tensor) -> np.ndarray:
    return np.stack([x.mean(dim=(1, 2, 3)).numpy() * 127.5, np.ones(len(x))], axis=1)


JUDGES = Judges(Reader(), identity=Brightness(), sface=Brightness(), inception=inception, no_inception=None)
SPEECH = np.random.default_rng(0).normal(0, 0.1, 40 * 640).astype(np.float32)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Skips cropping, which is not needed for frames of one colour."""
    monkeypatch.setattr(module, "crop", lambda frame, quad: np.full((256, 256, 3), frame[0, 0, 0], np.uint8))


def scored(predicted, **sounds) -> PairResult:
    options = PairOptions(unpaired=True, batch=7)
    return score_unpaired("ours", "a", "s", frames_of(LEVELS), predicted, JUDGES, options, **sounds)


def figures(result: PairResult) -> list[dict[str, Any]]:
    return [score.figures for score in result.scores]


def test_every_figure_either_stays_or_is_left_out_by_name():
    assert set(LEFT_OUT) | set(UNPAIRED) == set(MEANS) and not set(LEFT_OUT) & set(UNPAIRED)
    assert {"psnr", "ssim", "lmd", "mouth_corr", "perceptual", "closure_recall", "head_error"} <= set(
        LEFT_OUT
    )
    assert set(UNPAIRED) <= set(COLUMNS)


def test_other_words_of_another_length_are_measured_by_themselves():
    other = LEVELS[::-1][:31]
    pause = SPEECH.copy()
    pause[20 * 640 :] = 0
    result = scored(frames_of(other), true_sound=SPEECH, sound=pause)
    ours, truth = figures(result)
    assert [(s.row, s.n_frames, len(s.aperture)) for s in result.scores] == [
        ("ours", 31, 31),
        ("ground_truth", 40, 40),
    ]
    assert {name for name in LEFT_OUT if ours[name] is not None} == set()
    assert ours["aperture_spread_ratio"] == pytest.approx(other.std() / LEVELS.std())
    speeds = np.abs(np.diff(other)).mean() / np.abs(np.diff(LEVELS)).mean()
    assert ours["aperture_speed_ratio"] == pytest.approx(speeds)
    assert truth["aperture_spread_ratio"] == truth["aperture_speed_ratio"] == pytest.approx(1)
    assert truth["aperture_emd"] == 0 and ours["aperture_emd"] > 0
    assert ours["silence_motion"] == pytest.approx(np.abs(np.diff(other))[22:].mean() / 80 * 25)
    assert truth["silence_motion"] is None and truth["speech_motion"] is not None
    to_first = np.abs(other - LEVELS[0]).mean()  # the identity frame is the reference's first
    assert ours["identity"] == pytest.approx(to_first)
    assert ours["detection_rate"] == 1
    assert result.features["ours"].n == 31 and result.features["ground_truth"].n == 40


def test_the_reference_itself_is_equal_in_every_figure():
    ours, truth = figures(scored(frames_of(LEVELS)))
    assert ours == truth


def test_a_prediction_without_frames_is_black_and_one_that_loses_its_face_is_penalised():
    result = scored([])
    assert result.black == 40 and result.scores[0].figures["detection_rate"] == 0
    assert result.scores[0].figures["aperture_spread_ratio"] is None
    lost = np.where(np.arange(40) % 2, NOTHING, LEVELS)
    assert (
        figures(scored(frames_of(lost)))[0]["csim_dlib"] == figures(scored(frames_of(lost)))[0]["sface"] < 0.6
    )
    late = scored(frames_of(np.where(np.arange(40) < 10, NOTHING, LEVELS)))
    assert late.scores[0].n_frames == 40 and late.scores[0].figures["detection_rate"] == 0.75
    with pytest.raises(ValueError, match="no face is found in the reference"):
        score_unpaired("ours", "a", "s", frames_of([NOTHING] * 5), frames_of(LEVELS), JUDGES)
