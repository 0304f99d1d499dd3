"""The rows of one test clip, with an identity instead of rendering: a row's frames are its codes."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from audio.features import FeatureConfig, extract_features
from audio.timing import SAMPLES_PER_FRAME
from audio.waveform import Waveform
from encoders.records import FrameClip, LatentClip
from metrics.scoring.control_baselines import ROWS, fit_energy, log_energy, wrong_samples
from metrics.scoring.row_accumulator import ClipScore
from scripts.stages import evaluate_case
from scripts.stages.evaluate_case import TWO_PARTS, Case, Controls, ScoringContext, score_case

FRAMES, SHAPE = 12, (2, 4)


def numbered(frames: int, first: float) -> np.ndarray:
    """Sound (S,) of which all samples of frame t are first + t / 1000."""
    return np.repeat(first + np.arange(frames) / 1000, SAMPLES_PER_FRAME).astype(np.float32)


def clip_file(folder: Path, name: str, sound: np.ndarray) -> Path:
    n = len(sound) // SAMPLES_PER_FRAME
    frames, points = np.zeros((n, 8, 8, 3), np.uint8), np.zeros((n, 68, 2), np.float32)
    quads = np.zeros((n, 4, 2), np.float32)
    clip = FrameClip(name, name, name, "seen", "x.mp4", "0", frames, points, quads, np.ones(n, bool), sound)
    clip.save(folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def scored_rows(folder: Path, start: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Row -> its scored frames, which are its displacements; those of predictions are the sound of each frame."""
    clip = clip_file(folder, "one", numbered(FRAMES, 0.1))
    wrong = clip_file(folder, "two", numbered(FRAMES + 3, 0.5))
    w_ref, codes = np.zeros(SHAPE, np.float32), folder / "codes.safetensors"
    w = np.zeros((FRAMES, *SHAPE), np.float16)
    LatentClip("one", "one", "one", "seen", w, w_ref, 0, "", "", "").save(codes)

    def predicted(model: Any, sound: Waveform, w_ref_LD: np.ndarray, frames: int) -> np.ndarray:
        samples = sound.samples[::SAMPLES_PER_FRAME][:frames]
        return w_ref_LD + samples[:, None, None]

    monkeypatch.setattr(evaluate_case, "predict_latents", predicted)
    monkeypatch.setattr(evaluate_case, "render", lambda generator, w: iter(w))
    rows: dict[str, np.ndarray] = {}

    def add(row: str, clip: FrameClip, frames: Any, *rest: Any) -> ClipScore:
        rows[row] = np.stack(list(islice(frames, start, None)))
        return ClipScore(row, "seen", clip.name, FRAMES - start, {}, np.zeros(0), np.zeros(0))

    def leakage(silent: Any, driven: Any, detector: str) -> float:
        rows["silence"], rows["speech"] = np.stack(list(silent)), np.stack(list(driven))
        assert detector == "the judge's"
        return 0.25

    monkeypatch.setattr(evaluate_case, "leakage", leakage)
    energies = [log_energy(numbered(20, level), 20) for level in (0.1, 0.3)]
    energy = fit_energy(energies, [np.tile(e[:, None, None], (1, *SHAPE)) for e in energies], 1e-6)
    mean = np.tile(np.arange(10.0)[:, None, None], (1, *SHAPE))
    judges = SimpleNamespace(detector="the judge's")
    evaluation: Any = SimpleNamespace(add=add, judges=judges)
    monkeypatch.setattr(evaluate_case, "reencoded", lambda frames: (x + 1 for x in frames))
    context = ScoringContext(None, None, evaluation, 1, Controls(mean, energy), reencode=True)  # type: ignore[arg-type]
    case = Case(clip, codes, wrong, "seen", start, 0, w_ref, full=False, keep=False)
    scores, _ = score_case(case, context)
    assert {s.row: s.figures for s in scores if s.figures} == {"stage1_only": {"leakage": 0.25}}
    whole = [s.row for s in scores]
    parts = [score_case(replace(case, rows=part), context)[0] for part in TWO_PARTS]
    assert [s.row for part in parts for s in part if s.row in TWO_PARTS[0]] == [
        row for row in whole if row in TWO_PARTS[0]
    ]
    assert sorted(s.row for part in parts for s in part) == sorted(whole)
    assert set(TWO_PARTS[0] + TWO_PARTS[1]) == set(ROWS)
    return rows


@pytest.mark.parametrize("start", [0, 5])
def test_controls_have_the_frame_numbers_of_the_scored_frames(start, tmp_path, monkeypatch):
    rows = {row: x[:, 0, 0] for row, x in scored_rows(tmp_path, start, monkeypatch).items() if x.ndim == 3}
    scored = np.arange(start, FRAMES)
    np.testing.assert_allclose(rows["stage1_only"], 0.1 + scored / 1000, rtol=1e-6)
    np.testing.assert_array_equal(rows["mean_trajectory"], np.minimum(scored, 9))
    np.testing.assert_allclose(rows["wrong_audio"], 0.5 + scored / 1000, rtol=1e-6)
    loudness = np.log(1e-4 + 0.1 + scored / 1000)
    np.testing.assert_allclose(rows["energy"][3:-3], loudness[3:-3], atol=2e-3)
    late = np.maximum(scored - 5, start)  # the first prediction is repeated
    np.testing.assert_allclose(rows["shift_5"], 0.1 + late / 1000, rtol=1e-6)
    np.testing.assert_allclose(rows["reencoded"], rows["stage1_only"] + 1, rtol=1e-6)
    # Leakage compares the same person driven by digital silence with the prediction
    np.testing.assert_array_equal(rows["silence"], np.zeros(FRAMES - start))
    np.testing.assert_array_equal(rows["speech"], rows["stage1_only"])


def test_from_the_first_frame_on_wrong_audio_has_the_features_of_the_whole_sound():
    sound = np.random.default_rng(0).normal(0, 0.1, 20 * SAMPLES_PER_FRAME).astype(np.float32)
    for frames in (12, 20, 25):
        whole = extract_features(Waveform(sound), FeatureConfig(), frames).values
        cut = extract_features(Waveform(wrong_samples(sound, 0, frames)), FeatureConfig(), frames).values
        np.testing.assert_array_equal(cut, whole)
