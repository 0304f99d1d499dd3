"""Ridge regression from speech to one person's lips, its row, and the table of a folder of clips."""

import re

import numpy as np
import pytest

from audio.waveform import Waveform
from encoders.records import FrameClip
from metrics.report.report_files import ROW_KEYS
from metrics.scoring.ridge_baseline import fit_lips, score_curve
from metrics.scoring.score_clips import MEANS, summarise
from scripts.stages.evaluate_clips import clips_table, gather, records


def talk(frames: int, seed: int = 0) -> tuple[Waveform, np.ndarray]:
    """Noise that is loud while the lips are open, and their aperture."""
    rng = np.random.default_rng(seed)
    level = np.convolve(rng.random(frames + 4), np.ones(5) / 5, "valid")
    samples = rng.standard_normal(640 * frames) * np.repeat(level - 0.9 * level.min(), 640)
    return Waveform((0.2 * samples).astype(np.float32)), level


def test_the_row_predicts_lips_that_depend_on_the_sound():
    sound, lips = talk(200)
    known = np.ones(200, bool)
    known[50:60] = False
    wrong = np.where(known, lips, 9.0)  # wrong values where no face was found
    ridge = fit_lips(sound, wrong, known)
    other, true = talk(80, seed=1)
    assert np.corrcoef(ridge(other, 80), true)[0, 1] > 0.7


def clip_of(lips: np.ndarray, name: str = "one") -> FrameClip:
    points = np.tile(np.arange(136.0).reshape(68, 2), (len(lips), 1, 1))
    points[:, 62], points[:, 66] = [128, 180], np.stack([np.full(len(lips), 128), 180 + 80 * lips], axis=1)
    frames, n = np.zeros((len(lips), 8, 8, 3), np.uint8), len(lips)
    return FrameClip(
        *(name, name, "words", "train", "x.mp4", "0", frames, points.astype(np.float32)),
        *(np.zeros((n, 4, 2), np.float32), np.arange(n) != n - 1, np.zeros(640 * n, np.float32)),
    )


def test_a_curve_has_a_mouth_corr_only():
    _, lips = talk(40)
    score = score_curve("ridge", clip_of(lips), 3 * lips[10:] + 1, 10, "tuned")
    assert score.figures["mouth_corr"] == pytest.approx(1) and score.n_frames == 30
    assert {key for key in MEANS if score.figures[key] is not None} == {"mouth_corr"}
    assert len(score.aperture) == len(score.true_aperture) == 29  # the last frame's truth is not known
    row = summarise([score])[0]
    assert set(ROW_KEYS) <= row.keys() and row["lip_gain"] is None and row["mouth_corr"] == pytest.approx(1)


def report_of(clip: str, lengths: int, **rows: tuple[float | None, float]) -> dict:
    return {
        "clips": [
            {
                "row": row,
                "split": "tuned",
                "clip": clip,
                "speaker": clip,
                "n_frames": lengths,
                "figures": dict.fromkeys(MEANS) | {"lmd_mouth": distance, "mouth_corr": corr},
            }
            for row, (distance, corr) in rows.items()
        ]
    }


def test_the_table_of_a_folder():
    first = report_of("a", 100, full=(2.0, 0.6), static=(4.0, 0.0), inversion=(1.0, 0.9), ridge=(None, 0.5))
    second = report_of("b", 300, full=(3.0, 0.2), static=(2.0, 0.0), inversion=(1.0, 0.9), ridge=(None, 0.3))
    control = report_of(
        "c", 900, full=(9.0, -1.0), static=(1.0, 0.0), inversion=(0.5, 0.9), ridge=(None, 0.0)
    )
    clips = records(first, False) + records(second, False) + records(control, True)
    content = gather(clips)
    mean = {row["row"]: row for row in content["rows"]}
    assert list(mean) == ["inversion", "static", "ridge", "full"]
    assert mean["full"]["lmd_mouth"] == pytest.approx((2 * 100 + 3 * 300) / 400)
    assert mean["full"]["frames"] == 400 and mean["full"]["clips"] == 2
    assert mean["ridge"]["lmd_mouth"] is None and mean["ridge"]["mouth_corr"] == pytest.approx(0.35)
    low, high = mean["full"]["interval"]["mouth_corr"]
    assert low == pytest.approx(0.2) and high == pytest.approx(0.6)
    static, ridge = content["against"]
    assert static["better_on"] == ["a"] and static["mean"] == pytest.approx((-2 * 100 + 300) / 400)
    assert ridge["better_on"] == ["a"] and ridge["clips"] == ["a", "b"]
    gain = {(r["clip"], r["row"]): r["figures"]["lip_gain"] for r in clips}
    assert gain["a", "full"] == pytest.approx(2 / 3) and gain["a", "ridge"] is None
    text = clips_table(content | {"failed": {"d": "too short."}}).markdown()
    text = re.sub(" +", " ", text)  # cells are padded
    assert "| c (control) | full | 900 | 9.00 |" in text and "d was left out: too short." in text
    assert "full is better than static in lmd_mouth on 1 of 2 clips (a)" in text


def test_a_clip_whose_inversion_hardly_differs_from_static_has_no_lip_gain_and_the_table_says_so():
    first = report_of("a", 100, full=(2.0, 0.6), static=(3.0, 0.0), inversion=(1.0, 0.9))
    second = report_of("b", 300, full=(1.5, 0.2), static=(1.1, 0.0), inversion=(1.0, 0.9))
    content = gather(records(first, False) + records(second, False))
    mean = {row["row"]: row for row in content["rows"]}
    assert mean["full"]["lip_gain"] == pytest.approx(0.5)  # of clip a only
    assert mean["full"]["lip_gain_denominator"] == pytest.approx((2.0 * 100 + 0.1 * 300) / 400)
    text = clips_table(content).markdown()
    assert "b has no lip_gain: in lmd_mouth inversion is 0.10 px better than static" in text
    assert "a has no lip_gain" not in text
