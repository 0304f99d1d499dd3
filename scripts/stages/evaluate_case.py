"""Scores one test clip: the method's rows and the control baselines, each scored while it is rendered. A case contains
only plain data and paths, so that it can be sent to another process. Shapes: T frames of a clip, L rows of W+, D latent
width.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audio.features import extract_features
from audio.timing import SAMPLES_PER_FRAME
from audio.waveform import Waveform
from encoders.records import FrameClip, LatentClip
from metrics.scoring.control_baselines import (
    EnergyRidge,
    delayed,
    log_energy,
    mean_trajectory,
    static_frames,
    wrong_samples,
)
from metrics.scoring.leakage import LEAKAGE_FRAMES, leakage
from metrics.scoring.reencoding import REENCODED, reencoded
from metrics.scoring.ridge_baseline import MelRidge, score_curve
from metrics.scoring.row_accumulator import ClipScore
from metrics.scoring.score_clips import Evaluation
from scripts.core.runtime import RunError
from stylegan2.render import render
from trajectory.model.predictor import TrajectoryPredictor, predict

# A clip's rows in two parts for two processes, where there are at least twice as many processes as clips. The rows that
# show stage1_only's frames are together, and both parts take about as long.
TWO_PARTS = (
    ("ground_truth", "inversion", "static", "stage1_only", "shift_5", REENCODED),
    ("mean_trajectory", "energy", "wrong_audio", "stage1_base", "ridge", "pti_truth", "full"),
)


@dataclass(frozen=True)
class Case:
    """One test clip and the inputs of its rows."""

    clip: Path  # file of its FrameClip
    latents: Path  # file of its LatentClip
    wrong: Path | None  # FrameClip whose speech drives the wrong_audio row
    split: str  # split under which its rows are listed
    start: int  # frames before this one were used for tuning, and are neither predicted nor scored
    ref_index: int  # number of the identity frame
    w_ref: np.ndarray  # (L, D): the identity latent
    full: bool  # the clip shows the person whom the generator is tuned on (and stage 1 adapted to)
    keep: bool  # return its frames for the pictures of the report
    rows: tuple[str, ...] = TWO_PARTS[0] + TWO_PARTS[1]  # the rows that are scored


class Controls(NamedTuple):
    """The control baselines that are fitted to the data's training clips; None without such clips."""

    mean: np.ndarray | None = None  # (T, L, D): mean displacement, for the row mean_trajectory
    energy: EnergyRidge | None = None  # for the row energy


@dataclass(frozen=True)
class ScoringContext:
    """Networks and fitted control baselines, the same for all cases."""

    generator: Any
    model: TrajectoryPredictor
    evaluation: Evaluation
    every: int  # perceptual and identity measures use every k-th frame
    controls: Controls | None  # None: the only control baselines scored are metrics' REFERENCES
    tuned: Any | None = None  # the tuned person's generator
    adapted: TrajectoryPredictor | None = None  # the tuned person's stage 1
    reencode: bool = False  # also score stage1_only after encoding it once more
    ridge: MelRidge | None = None  # the tuned person's ridge regression from log-mel to lip aperture


@dataclass(frozen=True)
class Preview:
    """Frames for the report's pictures: truth and the best row, uint8 (T, H, W, 3), and the sound (S,)."""

    clip: str
    row: str
    true: np.ndarray
    predicted: np.ndarray
    waveform: np.ndarray


def score_case(case: Case, context: ScoringContext) -> tuple[list[ClipScore], Preview | None]:
    """The scores of all rows of one clip, and its frames if case.keep."""
    clip, codes = FrameClip.load(case.clip), LatentClip.load(case.latents)
    sound = Waveform(clip.waveform[case.start * SAMPLES_PER_FRAME :])
    total = len(clip) - case.start
    if total < 2:
        raise RunError(f"{clip.name} has no frames left to score after tuning: lower target.share.")
    adapted = context.adapted if case.full else None
    model = adapted or context.model
    w_TLD = predict_latents(model, sound, case.w_ref, total)
    true_w_TLD = codes.w[case.start :].astype(np.float32)
    controls, reference = context.controls, case.w_ref

    def score(row: str, frames: Iterable[np.ndarray], split: str = case.split) -> ClipScore:
        # Frames before case.start are left out of every measure, so they may be black.
        all_frames = chain(repeat(np.zeros((8, 8, 3), np.uint8), case.start), frames)
        skip, also = range(case.start), "tuned" if case.full else None
        return context.evaluation.add(row, clip, all_frames, case.ref_index, context.every, skip, split, also)

    def rendered(w: np.ndarray, generator: Any = context.generator) -> Iterator[np.ndarray]:
        return render(generator, w)

    # The stage-1 row with the untuned generator. Its frames are kept, because shift_5 shows them again later.
    predicted = list(rendered(w_TLD)) if "stage1_only" in case.rows else []
    rows: dict[str, Callable[[], Iterable[np.ndarray]]] = {
        "ground_truth": lambda: islice(iter(clip.frames), case.start, None),
        "inversion": lambda: rendered(true_w_TLD),
        "static": lambda: static_frames(np.asarray(clip.frames[case.ref_index]), total),
        "stage1_only": lambda: predicted,
    }
    # Control baselines, at the same frame numbers as the scored frames. energy, shift_5 and ridge use the sound or the
    # prediction that stage1_only has, so the part before case.start is missing in all of them alike.
    if controls is not None:
        if (mean := controls.mean) is not None:
            rows["mean_trajectory"] = lambda: rendered(reference + mean_trajectory(mean, case.start, total))
        if (energy := controls.energy) is not None:
            rows["energy"] = lambda: rendered(reference + energy(log_energy(sound.samples, total)))
        rows["shift_5"] = lambda: (predicted[t] for t in delayed(np.arange(total)))
    if controls is not None and (wrong := case.wrong) is not None:
        rows["wrong_audio"] = lambda: rendered(
            predict_latents(
                model,
                Waveform(wrong_samples(FrameClip.load(wrong).waveform, case.start, total)),
                reference,
                total,
            )
        )
    if adapted is not None:
        rows["stage1_base"] = lambda: rendered(predict_latents(context.model, sound, reference, total))
    if context.reencode:
        rows[REENCODED] = lambda: reencoded(predicted)
    scores = [score(row, frames()) for row, frames in rows.items() if row in case.rows]
    if predicted:
        # The same person driven by digital silence; once per case, for stage 1 with the untuned generator
        count = min(total, LEAKAGE_FRAMES)
        silence = Waveform(np.zeros(count * SAMPLES_PER_FRAME, np.float32))
        leaked = rendered(predict_latents(model, silence, reference, count))
        leaks = {"leakage": leakage(leaked, predicted, context.evaluation.judges.detector)}
        scores = [replace(s, figures=s.figures | leaks) if s.row == "stage1_only" else s for s in scores]
    if case.full and context.ridge is not None and "ridge" in case.rows:
        scores.append(score_curve("ridge", clip, context.ridge(sound, total), case.start, case.split))

    # Rows of the tuned generator.
    best = "stage1_only"
    if case.full and context.tuned is not None:
        best = "full"
        if controls is not None and "pti_truth" in case.rows:
            scores.append(score("pti_truth", rendered(true_w_TLD, context.tuned), "tuned"))
        if "full" in case.rows:
            predicted = list(rendered(w_TLD, context.tuned))
            scores.append(score("full", predicted, "tuned"))
    if not case.keep or best not in case.rows:
        return scores, None
    true = np.stack(list(islice(iter(clip.frames), case.start, None)))
    return scores, Preview(clip.name, best, true, np.stack(predicted), sound.samples)


def predict_latents(
    model: TrajectoryPredictor, sound: Waveform, w_ref_LD: np.ndarray, frames: int
) -> np.ndarray:
    """Speech -> W+ (T, L, D) of `frames` frames, with the feature settings that the model was trained with."""
    features = extract_features(sound, model.features, frames)
    return predict(model, features, w_ref_LD)
