"""Scoring of clips with a detector whose landmarks follow from the brightness of a frame, so that figures are known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from drawn_face import landmarks

from audio.waveform import Waveform
from encoders.features.perceptual import Perceptual
from encoders.footage.faces import Face
from encoders.records import FrameClip
from metrics.measures.sync_distance import OURS
from metrics.report.report_files import ROW_KEYS, report_table
from metrics.scoring import row_accumulator
from metrics.scoring.control_baselines import delayed, static_frames
from metrics.scoring.row_accumulator import ClipScore, Judges
from metrics.scoring.score_clips import Evaluation, Truth, score_clip, stride_for
from scripts.stages.evaluate import _table

NOTHING = 250  # in a frame of this brightness no face is found
LEVELS = (20 + 15 * np.sin(np.arange(24) * 1.3) * np.cos(np.arange(24) * 0.4)).round().astype(int)


class Reader:
    """Finds a face whose lip aperture is proportional to the brightness of the frame."""

    name = "reader"
    calls = 0

    def __call__(self, image: np.ndarray, near: np.ndarray | None = None) -> list[Face]:
        self.calls += 1
        level = round(float(image[:, :, 0].mean()))
        return [] if level == NOTHING else [Face(np.array([60, 80, 196, 216], np.float32), landmarks(level))]


class Brightness:
    """Embeds a face as the brightness of the frame."""

    def embed(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return np.array([image.mean()])


class L1(Perceptual):
    def __init__(self) -> None:
        super().__init__("l1", torch.nn.Identity())
        self.sizes: list[int] = []  # of every image whose features were computed

    def features(self, x):
        self.sizes.append(x.shape[-1])
        return [x]

    def between(self, x, y):
        return (x[0] - y[0]).abs().flatten(1).mean(dim=1)


def frames_of(levels: np.ndarray, size: int = 256) -> list[np.ndarray]:
    return [np.full((size, size, 3), level, np.uint8) for level in levels]


def clip_of(levels: np.ndarray, name: str = "one", split: str = "seen") -> FrameClip:
    n = len(levels)
    points = np.stack([landmarks(level) for level in levels])
    waveform, quads = np.zeros(640 * n, np.float32), np.zeros((n, 4, 2), np.float32)
    frames = np.stack(frames_of(levels))
    return FrameClip(
        name, "s1", "words", split, "x.mp4", "0", frames, points, quads, np.ones(n, bool), waveform
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Replaces SSIM, which takes 7 ms per frame and has its own tests."""
    monkeypatch.setattr(row_accumulator, "ssim", lambda a, b: float((a == b).mean()))


@pytest.fixture
def clip() -> FrameClip:
    return clip_of(LEVELS)


def score(row: str, clip: FrameClip, frames: Any, judges: Judges, **options: Any) -> ClipScore:
    return score_clip(row, clip, frames, judges, Truth.of(clip, 0, judges), **options)


def figures(clip: FrameClip, levels: np.ndarray, **options: Any) -> dict[str, Any]:
    row = options.pop("row", "stage1_only")
    return score(row, clip, iter(frames_of(levels)), Judges(Reader()), **options).figures


def test_the_truth_against_itself_is_perfect(clip):
    judges = Judges(Reader(), L1(), Brightness())
    result = score("ground_truth", clip, iter(clip.frames), judges).figures
    assert result["psnr"] is None
    assert result["ssim"] == pytest.approx(1) and result["detection_rate"] == 1
    assert result["lmd"] == result["lmd_mouth"] == result["lmd_mouth_iod"] == 0
    assert result["mouth_corr"] == pytest.approx(1) and result["width_corr"] == pytest.approx(1)
    assert result["perceptual"] is None  # not one of the rows for which it is computed
    assert result["identity"] == pytest.approx(np.abs(LEVELS - LEVELS[0]).mean())


def test_sface_is_zero_without_a_face_and_changes_no_other_figure(clip):
    judges = Judges(Reader(), identity=Brightness())
    levels = np.where(np.arange(24) % 4 == 1, NOTHING, LEVELS)
    without = score("full", clip, frames_of(levels), judges).figures
    with_sface = score("full", clip, frames_of(levels), replace(judges, sface=Brightness())).figures
    assert without["sface"] is None and with_sface["sface"] == 0.75  # the cosine of two numbers is 1
    assert with_sface | {"sface": None} == without


def test_a_shift_is_found(clip):
    late = figures(clip, delayed(LEVELS, 5))
    assert late["mouth_corr"] < 0.5 and late["lmd_mouth"] > 0


def test_known_figures_of_a_constant_error(clip):
    result = figures(clip, LEVELS + 10)
    assert result["psnr"] == pytest.approx(20 * np.log10(255 / 10))
    assert result["mouth_corr"] == pytest.approx(1)
    # two lip points move 5 px each, two corners 2.5 px each, opposite ways
    assert result["lmd"] == pytest.approx(15 / 68, rel=1e-5)
    assert result["lmd_mouth"] == pytest.approx(15 / 20, rel=1e-5)
    assert result["lmd_mouth_iod"] == pytest.approx(15 / 20 / 80, rel=1e-5)


def test_a_frozen_face_is_detected_once_and_has_no_correlation(clip):
    reader = Reader()
    frozen = static_frames(np.asarray(clip.frames[0]), len(LEVELS))
    result = score("static", clip, frozen, Judges(reader)).figures
    assert result["mouth_corr"] == 0 and result["width_corr"] == 0
    assert result["psnr"] is not None and np.isfinite(result["psnr"])  # although frame 0 is identical
    assert result["identical_frames"] == np.mean(LEVELS[0] == LEVELS) > 0
    assert reader.calls == 2  # the identity frame, and the row


def test_a_frame_without_a_face_gets_the_static_landmarks():
    levels = np.array([30, 30, 1, 30, 1, 30])
    clip, without_face = clip_of(levels), levels.copy()
    assert figures(clip, levels)["closure_recall"] == 1
    without_face[2] = NOTHING
    result = figures(clip, without_face)
    assert result["detection_rate"] == pytest.approx(5 / 6)
    assert result["lmd"] == pytest.approx(figures(clip, np.array([30, 30, 30, 30, 1, 30]))["lmd"])
    assert result["closure_recall"] == 0.5
    # A frame without a detected face has no lip closure even if the identity frame's lips are closed
    closed = clip_of(np.array([1, 30, 30, 1, 30, 30]))
    gone = figures(closed, np.array([1, 30, 30, NOTHING, 30, 30]))
    assert gone["closure_recall"] == 0 and gone["lmd"] == 0


def test_frames_used_for_tuning_are_not_scored(clip):
    wrong = LEVELS.copy()
    wrong[:4] = NOTHING
    scored = score("full", clip, frames_of(wrong), Judges(Reader()), skip=range(4), split="tuned")
    assert scored.figures["detection_rate"] == 1 and scored.figures["lmd"] == 0
    assert scored.n_frames == 20 and len(scored.aperture) == 20 and scored.split == "tuned"
    with pytest.raises(ValueError, match="nothing to score"):
        figures(clip, LEVELS, skip=range(24))


def test_frames_whose_truth_is_unknown_count_for_the_image_only(clip):
    hidden = np.arange(24) != 7
    partly = FrameClip(**{**clip.__dict__, "detected": hidden})
    wrong = LEVELS.copy()
    wrong[7] += 60
    result = figures(partly, wrong)
    assert result["lmd"] == 0 and result["psnr"] is not None
    nothing = figures(FrameClip(**{**clip.__dict__, "detected": np.zeros(24, bool)}), LEVELS)
    assert nothing["lmd"] is None and nothing["mouth_corr"] is None and nothing["ssim"] == pytest.approx(1)


def test_sampling_and_size_of_the_perceptual_figure(clip):
    assert stride_for(1000) == 5 and stride_for(10) == 1
    distance = L1()
    judges = Judges(Reader(), distance, Brightness(), perceptual_size=64)
    jumps = np.where(np.arange(24) % 6 == 3, LEVELS + 51, LEVELS)  # every 6th frame from the third
    scored = score("full", clip, frames_of(jumps), judges, every=6)
    assert scored.figures["perceptual"] == pytest.approx(51 / 127.5, rel=1e-4)
    assert set(distance.sizes) == {64}


def test_the_truth_of_a_clip_is_computed_once_for_all_rows(clip):
    reader, distance = Reader(), L1()
    evaluation = Evaluation(Judges(reader, distance, Brightness()))
    for row, raised in (("full", 51), ("stage1_only", 51), ("inversion", 0)):
        expected = evaluation.add(row, clip, frames_of(LEVELS + raised), 0, every=6).figures["perceptual"]
        assert expected == pytest.approx(raised / 127.5, abs=1e-6)
    assert len(distance.sizes) == 4 * (1 + 3)  # 4 frames of the truth and of each row
    different = len({*LEVELS, *(LEVELS + 51)})
    assert (
        reader.calls == 1 + different
    )  # the identity frame, and each different frame, whatever rows show it
    second_clip = clip_of(LEVELS + 9, "two")
    assert evaluation.add("full", second_clip, frames_of(LEVELS + 9), 0).figures["identity"] == pytest.approx(
        np.abs(LEVELS - LEVELS[0]).mean()
    )  # relative to the second clip's identity frame


def test_a_row_that_shows_the_frames_of_another_is_not_judged_again(clip, monkeypatch):
    reader, embedded = Reader(), []
    embed = Brightness.embed
    monkeypatch.setattr(Brightness, "embed", lambda *args: embedded.append(1) or embed(*args))
    judges = Judges(reader, None, Brightness())
    evaluation, late = Evaluation(judges), delayed(LEVELS + 51, 5)
    evaluation.add("stage1_only", clip, frames_of(LEVELS + 51), 0)
    calls, embeddings = reader.calls, len(embedded)
    shifted = evaluation.add("shift_5", clip, frames_of(late), 0)
    assert (reader.calls, len(embedded)) == (calls, embeddings)
    alone = score("shift_5", clip, frames_of(late), judges)
    assert shifted.figures == alone.figures and np.array_equal(shifted.aperture, alone.aperture)


def test_other_resolutions_are_resized_to_the_256_px_crop(clip):
    scored = score("full", clip, frames_of(LEVELS, 512), Judges(Reader()))
    assert scored.figures["psnr"] is None and scored.figures["lmd"] == 0


def test_a_row_of_another_length_is_refused(clip):
    for levels in (LEVELS[:-1], np.append(LEVELS, 3)):
        with pytest.raises(ValueError, match="the clip has 24"):
            figures(clip, levels)


def test_rows_are_means_over_clips_with_lip_gain():
    clips = [clip_of(LEVELS), clip_of(LEVELS[:12][::-1].copy(), "two")]
    evaluation = Evaluation(Judges(Reader()))
    for clip in clips:
        levels = clip.frames[:, 0, 0, 0].astype(int)
        evaluation.add("static", clip, frames_of(np.full(len(levels), levels[0])), 0)
        evaluation.add("inversion", clip, frames_of(levels), 0)
        evaluation.add("stage1_only", clip, frames_of((levels + levels[0]) // 2), 0)
    evaluation.add("full", clips[0], frames_of(LEVELS), 0, split="tuned")
    table = {(row["name"], row["split"]): row for row in evaluation.rows()}
    assert list(table) == [
        ("static", "seen"),
        ("inversion", "seen"),
        ("stage1_only", "seen"),
        ("full", "tuned"),
    ]
    half = table["stage1_only", "seen"]
    assert set(ROW_KEYS) <= half.keys()
    each = [s.figures["lmd_mouth"] for s in evaluation.scores if s.row == "stage1_only"]
    assert half["lmd_mouth"] == pytest.approx(np.mean([value for value in each if value is not None]))
    assert half["lip_gain"] == pytest.approx(0.5, abs=0.05)
    assert table["static", "seen"]["lip_gain"] == 0 and table["inversion", "seen"]["lip_gain"] == 1
    gap = table["static", "seen"]["lmd_mouth"] - table["inversion", "seen"]["lmd_mouth"]
    assert half["lip_gain_denominator"] == pytest.approx(gap) and gap > 0.2
    assert table["full", "tuned"]["lip_gain_denominator"] is None
    assert table["full", "tuned"]["lip_gain"] is None  # no static and inversion rows on that split
    assert half["n_frames"] == 36 and half["n_clips"] == 2
    assert half["fid"] is None and half["fid_reason"]
    low, high = half["interval"]["lmd_mouth"]
    assert low <= half["lmd_mouth"] <= high
    with pytest.raises(ValueError, match="scored twice"):
        evaluation.add("static", clips[0], frames_of(LEVELS), 0)
        evaluation.rows()


def brightness(x):
    """Replaces Inception: the only feature is the mean grey level."""
    out = np.zeros((len(x), 4))
    out[:, 0] = x.mean(dim=(1, 2, 3)).numpy() * 127.5
    return out


def test_fid_compares_with_the_ground_truth_row(clip):
    evaluation = Evaluation(Judges(Reader(), inception=brightness, no_inception=None))
    short = clip_of(LEVELS[:3])
    evaluation.add("ground_truth", short, frames_of(LEVELS[:3]), 0)
    evaluation.add("full", short, frames_of(LEVELS[:3] + 2), 0)
    truth, full = evaluation.rows()
    assert truth["fid"] == pytest.approx(0, abs=1e-6) and full["fid"] == pytest.approx(4, rel=1e-4)
    assert full["fid_reason"] is None


def test_the_tuned_split_has_a_fid_of_its_own(clip):
    """As in scripts/stages/evaluate_case.py: `full` is listed as tuned, the other rows under the clip's own split."""
    evaluation = Evaluation(Judges(Reader(), inception=brightness, no_inception=None))
    for number, tuned in enumerate((True, False)):
        short = clip_of(LEVELS[:3], name=f"clip {number}", split="unseen")
        also = "tuned" if tuned else None
        evaluation.add("ground_truth", short, frames_of(LEVELS[:3]), 0, also=also)
        evaluation.add("stage1_only", short, frames_of(LEVELS[:3] + 2 + 2 * number), 0, also=also)
        if tuned:
            evaluation.add("full", short, frames_of(LEVELS[:3] + 1), 0, split="tuned", also=also)
    fid = {(row["name"], row["split"]): row["fid"] for row in _table(evaluation)}
    assert fid["full", "tuned"] == pytest.approx(1, rel=1e-4)
    assert fid["stage1_only", "tuned"] == pytest.approx(4, rel=1e-4)
    assert fid["ground_truth", "tuned"] == pytest.approx(0, abs=1e-6)
    assert fid["stage1_only", "unseen"] > 8  # of both clips


def test_psnr_reports_the_number_of_clips_in_its_mean():
    evaluation = Evaluation(Judges(Reader()))
    for name, more in (("one", 0), ("two", 10)):
        evaluation.add("full", clip_of(LEVELS, name), frames_of(LEVELS + more), 0)
    (row,) = evaluation.rows()
    assert row["psnr"] == pytest.approx(20 * np.log10(255 / 10)) and row["identical_frames"] == 0.5
    assert (row["n_psnr"], row["n_clips"]) == (1, 2)
    assert "1 of 2 clips are identical" in report_table([row]).markdown()


class Aligned:
    """Replaces ArcFace: a unit vector whose angle is the frame's brightness."""

    def embed(self, frames_NHWC: np.ndarray) -> np.ndarray:
        angle = frames_NHWC.mean(axis=(1, 2, 3)) / 100
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_csim_by_arcface_and_by_dlib(clip):
    judges = Judges(Reader(), arcface=Aligned(), absent={"csim_arcface": "no ArcFace weights at x"})
    scored = score("full", clip, frames_of(LEVELS), judges)
    assert scored.figures["csim_arcface"] == pytest.approx(np.cos((LEVELS - LEVELS[0]) / 100).mean())
    without_face = score("full", clip, frames_of(np.full(24, NOTHING)), judges)
    assert without_face.figures["csim_arcface"] == 0 and without_face.figures["csim_dlib"] is None
    assert "No csim_arcface: no ArcFace weights at x." in report_table([], judges.absent).markdown()


class Echo:
    """A sync judge that embeds a frame as its brightness and the sound as its level."""

    name, columns, padded = "echo", OURS, False

    def __init__(self) -> None:
        self.levels: list[float] = []

    def video_embedder(self) -> Any:
        return Echo()

    def add(self, face_crop: np.ndarray) -> None:
        self.levels.append(float(face_crop.mean()))

    def embeddings(self) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(np.array(self.levels), 5)

    def embed_sound(self, waveform: Waveform, frames: int) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(waveform.samples.reshape(frames, 640).mean(axis=1), 5)


def test_sync_uses_the_sound_of_the_scored_frames(clip):
    voiced = FrameClip(**{**clip.__dict__, "waveform": np.repeat(LEVELS.astype(np.float32), 640)})
    judges = Judges(Reader(), sync=Echo())
    for levels, offset in ((LEVELS, 0), (delayed(LEVELS, 3), 3)):
        scored = score("full", voiced, frames_of(levels), judges, skip=range(6))
        assert scored.figures["sync_offset"] == offset and scored.figures["lse_c"] is None
    gaps = score("full", voiced, frames_of(LEVELS), judges, skip=[9])
    assert gaps.figures["sync_offset"] is None  # frames that do not follow one another


def test_silence_dynamics_and_sharpness_of_a_row(clip):
    """Twice the lip movement of the truth while there is sound, half of it in silence, and half the contrast."""
    noise = np.random.default_rng(0).normal(0, 0.1, 12 * 640).astype(np.float32)
    silent = np.arange(24) >= 12
    texture = np.random.default_rng(1).choice([-8, 8], (256, 256, 1))
    frames = np.stack(frames_of(100 + 4 * (np.arange(24) % 2))) + texture
    waveform = np.concatenate([noise, np.zeros(12 * 640, np.float32)])
    points = np.stack([landmarks(level) for level in frames.mean(axis=(1, 2, 3)).round().astype(int)])
    talking = {"frames": frames.astype(np.uint8), "landmarks": points, "waveform": waveform}
    clip = FrameClip(**{**clip.__dict__, **talking})
    row = np.stack(frames_of(100 + np.where(silent, 2, 8) * (np.arange(24) % 2))) + texture // 2
    scored = (("ground_truth", clip.frames), ("full", row.astype(np.uint8)))
    both: list[Any] = [score(name, clip, iter(x), Judges(Reader())).figures for name, x in scored]
    true, ours = both
    assert true["silence_ratio"] == pytest.approx(1) and true["speech_motion"] == pytest.approx(4 / 80 * 25)
    assert ours["silence_motion"] == pytest.approx(2 / 80 * 25, rel=1e-5)
    assert 0.26 < ours["silence_ratio"] < 0.32  # the two frames at the edge of the pause count as speech
    assert true["aperture_spread_ratio"] == true["aperture_speed_ratio"] == pytest.approx(1)
    assert 1 < ours["aperture_speed_ratio"] < 2 and ours["aperture_emd"] > true["aperture_emd"] == 0
    assert true["mouth_sharpness"] == true["face_sharpness"] == pytest.approx(1)
    assert ours["mouth_sharpness"] == ours["face_sharpness"] == pytest.approx(0.25, rel=0.05)
    assert true["still_flicker"] == pytest.approx(4, rel=1e-5)
    assert ours["leakage"] is None  # scripts/stages/evaluate_case.py fills it


def test_a_row_without_image_figures_is_not_called_identical_to_the_truth():
    row = {"name": "shift_5", "split": "all", "mouth_corr": 0.1, "n_frames": 9, "n_clips": 3, "n_psnr": 0}
    assert "identical" not in report_table([row | {"identical_frames": None}]).markdown()
    assert "3 of 3 clips are identical" in report_table([row | {"identical_frames": 1.0}]).markdown()
