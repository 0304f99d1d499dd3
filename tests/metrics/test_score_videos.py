"""Scoring of video pairs with a detector whose landmarks follow from the brightness of a frame."""

from itertools import chain, repeat
from typing import Any

import numpy as np
import pytest
import torch
from brightness_face import LEVELS, NOTHING, Brightness, Reader
from drawn_face import landmarks

from audio.waveform import Waveform
from encoders.footage.align import smooth_quads
from encoders.footage.aligned_pairs import aligned_pairs, same_shape, scaled_quad, smoothed_stream
from metrics.measures.kid import Features
from metrics.measures.sync_distance import OURS
from metrics.report.sync_sanity import sync_check
from metrics.scoring import row_accumulator, score_videos
from metrics.scoring.control_baselines import delayed
from metrics.scoring.row_accumulator import Judges
from metrics.scoring.score_videos import CONTROLS, PairOptions, PairResult, score_pair, whole_frame


class L1(torch.nn.Module):
    def forward(self, x, y):
        return (x - y).abs().flatten(1).mean(dim=1)


def frames_of(levels, size: int = 64) -> list[np.ndarray]:
    return [np.full((size, size, 3), level, np.uint8) for level in levels]


def inception(x: torch.Tensor) -> np.ndarray:
    return np.stack([x.mean(dim=(1, 2, 3)).numpy() * 127.5, np.ones(len(x))], axis=1)


JUDGES = Judges(Reader(), identity=Brightness(), sface=Brightness())
NETWORKS = Judges(
    Reader(), identity=Brightness(), inception=inception, no_inception=None, distances={"st_lpips_vgg": L1()}
)


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Skips cropping and SSIM (5 and 10 ms per frame), which are not needed for frames of one colour."""
    if "real" not in request.node.name:
        monkeypatch.setattr(row_accumulator, "ssim", lambda a, b: float((a == b).mean()))
        monkeypatch.setattr(
            score_videos, "crop", lambda frame, quad: np.full((256, 256, 3), frame[0, 0, 0], np.uint8)
        )


def scored(predicted, levels: Any = LEVELS, judges=JUDGES, **options) -> PairResult:
    frames = chain(predicted, repeat(None))
    return score_pair("ours", "s1/a", "s1", frames_of(levels), frames, judges, PairOptions(**options))


def figures(result: PairResult, row: str = "ours") -> dict:
    return next(score.figures for score in result.scores if score.row == row)


@pytest.mark.parametrize("crop", ["face with real crops", "mouth", "full"])
def test_a_video_against_itself_is_perfect(crop):
    levels = LEVELS[:14] if "real" in crop else LEVELS
    judges = NETWORKS if "real" in crop else JUDGES
    result = scored(frames_of(levels), levels, judges, crop=crop.split()[0])
    method = figures(result)
    assert (
        method["psnr"] is None
        and method["identical_frames"] == 1
        and method["ssim"] == 1
        and method["st_lpips_vgg"] in (0, None)
    )
    for name in ("lmd", "lmd_mouth", "f_lmd", "m_lmd", "head_error", "blink_error", "mouth_lag", "width_lag"):
        assert method[name] == 0, name
    for name in ("mouth_corr", "mouth_corr_best", "width_corr", "closure_recall", "detection_rate"):
        assert method[name] in (None, pytest.approx(1)), name
    truth = figures(result, "ground_truth")
    assert method["csim_dlib"] == truth["csim_dlib"] and method["flicker"] == truth["flicker"] > 0
    assert [s.row for s in result.scores] == ["ours", *CONTROLS]
    assert result.black == result.left_out == result.unknown == 0


@pytest.mark.parametrize("shift", [-4, 2, 5])
def test_a_shift_by_k_frames_is_found_as_k(shift):
    index = np.clip(np.arange(40) - shift, 0, 39)
    method = figures(scored(frames_of(LEVELS[index])))
    assert method["mouth_lag"] == method["width_lag"] == shift
    assert method["mouth_corr_best"] == pytest.approx(1) and method["mouth_corr"] < 0.5


def test_figures_of_the_control_baselines():
    result = scored(frames_of(LEVELS))
    static, late = figures(result, "static"), figures(result, "shift_5")
    assert static["mouth_corr"] == 0 and static["mouth_lag"] is None and static["flicker"] == 0
    assert static["head_motion"] == pytest.approx(0, abs=1e-9) and static["psnr"] < 30
    assert late["mouth_lag"] == 5 and late["psnr"] is None
    expected = figures(scored(frames_of(delayed(LEVELS))))
    for name in ("lmd", "mouth_corr", "closure_recall", "head_motion"):
        assert late[name] == expected[name], name


def test_batch_size_changes_nothing():
    predicted = frames_of(LEVELS[:9] + 9)
    single, batched = (scored(predicted, LEVELS[:9], NETWORKS, batch=batch, every=3) for batch in (1, 4))
    for a, b in zip(single.scores, batched.scores, strict=True):
        assert a.figures == pytest.approx(b.figures, nan_ok=True)
    assert np.allclose(single.features["ours"].gaussian.mean, batched.features["ours"].gaussian.mean)
    assert np.allclose(single.features["ours"].sample, batched.features["ours"].sample, atol=1e-3)


def test_lost_faces_are_penalised_not_dropped():
    without_faces = LEVELS.copy()
    without_faces[::2] = NOTHING
    ours, static = (
        figures(scored(frames_of(without_faces))),
        figures(scored(frames_of(without_faces)), "static"),
    )
    assert ours["detection_rate"] == 0.5
    # If frames without a face were dropped, lmd would be 0 and mouth_corr 1
    assert ours["lmd"] == pytest.approx(static["lmd"] / 2, rel=0.3) and ours["mouth_corr"] < 0.9
    assert ours["csim_dlib"] < 0.51 and ours["sface"] == ours["csim_dlib"]
    nothing = figures(scored(frames_of([NOTHING] * 40)))
    assert nothing["lmd"] == static["lmd"] and nothing["mouth_corr"] == 0
    assert nothing["csim_dlib"] == nothing["sface"] == 0 and static["sface"] is None


def test_a_missing_prediction_is_black_and_worse_than_a_frozen_face():
    result = scored([])
    ours, static = figures(result), figures(result, "static")
    assert result.black == 40 and ours["detection_rate"] == 0
    assert ours["psnr"] < static["psnr"] and ours["lmd"] == static["lmd"]
    part = scored(frames_of(LEVELS[:30]))
    assert part.black == 10 and figures(part)["detection_rate"] == 0.75


def test_another_size_is_scaled_and_another_shape_refused():
    large = scored(frames_of(LEVELS, 128))
    assert figures(large)["lmd"] == 0 and figures(large)["psnr"] is None and not large.other_shape
    wide = scored([np.full((64, 96, 3), level, np.uint8) for level in LEVELS])
    assert wide.other_shape and wide.black == 40
    assert same_shape(np.zeros((256, 256, 3)), np.zeros((512, 510, 3)))


def test_the_size_of_the_videos_does_not_change_the_landmark_distance():
    """In px of the frames, as in other scripts, it would double with the size."""
    small, large = (
        figures(
            score_pair(
                "ours", "a", "s", frames_of(LEVELS, n), chain(frames_of(LEVELS + 9, n), repeat(None)), JUDGES
            )
        )
        for n in (64, 128)
    )
    naive = [
        np.linalg.norm(landmarks(60) * n / 256 - landmarks(69) * n / 256, axis=1).mean() for n in (64, 128)
    ]
    assert naive[1] == pytest.approx(2 * naive[0])
    assert small["lmd"] == pytest.approx(large["lmd"]) and small["lmd"] > 0


def test_frames_of_the_truth_without_a_face():
    true = LEVELS.copy()
    true[:20] = NOTHING  # longer than the smoothing window
    true[23] = NOTHING
    predicted = true.copy()
    predicted[23] = 90
    result = scored(frames_of(predicted), true)
    assert result.left_out == 20 and result.unknown == 1
    method = figures(result)
    assert method["lmd"] == 0 and method["psnr"] is not None  # frame 23 contributes to the image figures only
    assert result.scores[0].n_frames == 20 and np.isnan(result.scores[0].error[3])
    with pytest.raises(ValueError, match="no face"):
        scored(frames_of(LEVELS), [NOTHING] * 40)


def test_features_do_not_depend_on_the_order_of_clips():
    rng = np.random.default_rng(0)
    clips = {name: rng.normal(size=(30, 4)) for name in "abc"}
    sets = []
    for order in ("abc", "cba"):
        features = Features(most=25)
        for name in order:
            part = Features(most=25)
            for start in range(0, 30, 7 if order == "abc" else 30):
                part.update(clips[name][start : start + (7 if order == "abc" else 30)], name, start)
            features.merge(part)
        sets.append(features)
    assert np.array_equal(sets[0].sample, sets[1].sample) and sets[0].n == 90
    assert np.allclose(sets[0].gaussian.covariance, sets[1].gaussian.covariance)


def test_the_stream_smooths_as_the_whole_clip_does():
    rng = np.random.default_rng(1)
    square = np.array([[0, 0], [0, 100], [100, 100], [100, 0]], np.float32)
    quads = square + rng.normal(0, 3, (60, 1, 2)).astype(np.float32)
    items, smoothed = zip(*smoothed_stream(zip(range(60), quads, strict=True)), strict=True)
    assert items == tuple(range(60))
    np.testing.assert_allclose(np.stack(smoothed)[15:-15], smooth_quads(quads)[15:-15], atol=0.02)
    gaps = [(t, None if t < 20 or 30 < t < 35 else quad) for t, quad in enumerate(quads)]
    filled = [quad for _, quad in smoothed_stream(gaps)]
    assert filled[7] is None and filled[8] is not None and all(q is not None for q in filled[8:])


def test_no_more_frames_are_held_than_the_window_needs():
    frames_read = 0

    def counted():
        nonlocal frames_read
        for frame in frames_of(LEVELS):
            frames_read += 1
            yield frame

    for done, _ in enumerate(aligned_pairs(counted(), repeat(None), Reader())):
        assert frames_read - done <= 13


def test_a_quad_keeps_its_place_at_another_size():
    quad = np.array([[-0.5, -0.5], [-0.5, 63.5], [63.5, 63.5], [63.5, -0.5]], np.float32)
    np.testing.assert_allclose(scaled_quad(quad, (64, 64, 3), (128, 128, 3)), (quad + 0.5) * 2 - 0.5)
    assert whole_frame(np.zeros((100, 200, 3), np.uint8)).shape == (256, 512, 3)


def test_sync_measures_are_tested_with_the_shift():
    scores = scored(frames_of(LEVELS)).scores
    verdicts = {c["measure"]: c["verdict"] for c in sync_check(scores, "ours")}
    assert verdicts["mouth_corr"] == verdicts["mouth_lag"] == verdicts["width_corr"] == "moves"
    # The correlation at the best lag does not react to a constant delay
    naive = sync_check(scores, "ours", measures=["mouth_corr_best"])
    assert naive[0]["verdict"] == "broken"


def test_unrelated_lips_give_no_verdict():
    unrelated = scored(frames_of(np.random.default_rng(3).integers(15, 100, 40)))
    checks = {c["measure"]: c["verdict"] for c in sync_check(unrelated.scores, "ours")}
    assert checks["mouth_corr"] == "no signal"


class Echo:
    """A sync judge that embeds a frame as its brightness and the sound as its level."""

    name, columns, padded = "echo", OURS, False

    def video_embedder(self) -> Any:
        return BrightnessEmbedder()

    def embed_sound(self, waveform: Waveform, frames: int) -> np.ndarray:
        return windows(waveform.samples.reshape(frames, 640).mean(axis=1))


class BrightnessEmbedder:
    def __init__(self) -> None:
        self.levels: list[float] = []

    def add(self, face_crop: np.ndarray) -> None:
        self.levels.append(float(face_crop.mean()))

    def embeddings(self) -> np.ndarray:
        return windows(np.array(self.levels))


def windows(curve: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(curve, 5)


def sound_of(levels) -> np.ndarray:
    return np.repeat(np.asarray(levels, np.float32), 640)


def test_sync_of_every_row_and_its_reaction_to_the_shift():
    judges = Judges(Reader(), sync=Echo())
    true = np.concatenate(
        [[NOTHING] * 20, LEVELS]
    )  # frames before the first face are left out, with their sound

    def rows(predicted, sound) -> dict[str, dict]:
        frames = chain(frames_of(predicted), repeat(None))
        result = score_pair("ours", "a", "s1", frames_of(true), frames, judges, sound=sound)
        verdicts = {c["measure"]: c["verdict"] for c in sync_check(result.scores, "ours")}
        return {score.row: score.figures for score in result.scores} | {"verdicts": verdicts}

    synced = rows(true, sound_of(true))
    assert synced["ours"]["sync_offset"] == 0 and synced["ours"]["sync_distance"] == pytest.approx(0)
    assert synced["ground_truth"]["sync_offset"] == 0 and synced["shift_5"]["sync_offset"] == 5
    assert synced["static"]["sync_offset"] is None and synced["static"]["sync_confidence"] == 0
    assert synced["ours"]["lse_c"] is None and synced["verdicts"]["sync_offset"] == "moves"
    early = rows(np.concatenate([true[3:], true[-3:]]), sound_of(true))
    assert early["ours"]["sync_offset"] == -3 and early["ground_truth"]["sync_offset"] == 0
    silent = rows(true, None)
    assert silent["ours"]["sync_offset"] is None and "sync_offset" not in silent["verdicts"]
    short = rows(true, sound_of(true[:-1]))  # the sound ends before the picture
    assert short["ours"]["sync_offset"] == 0
