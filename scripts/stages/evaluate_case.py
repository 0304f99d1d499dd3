"""What evaluate.py scores: test clips with all that drives their rows, and the rows of one clip.

A case is scored in a process of its own kind: everything it needs is plain data or a path, so cases spread over
processes. Shapes: T frames of a clip, L rows of W+, D latent width.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audio.features import extract_features
from audio.timing import SAMPLES_PER_FRAME
from audio.waveform import Waveform
from encoders.records import FrameClip, LatentClip
from metrics.scoring.clip_score import ClipScore
from metrics.scoring.control_baselines import (
    EnergyRidge,
    delayed,
    log_energy,
    mean_trajectory,
    static_frames,
)
from metrics.scoring.ridge_baseline import MelRidge, score_curve
from metrics.scoring.score_clips import Evaluation
from scripts.core.runtime import RunError
from stylegan2.render import render
from trajectory.model.predictor import TrajectoryPredictor, predict


@dataclass(frozen=True)
class Case:
    """One test clip: files of its frames, latents and of the clip whose speech the wrong_audio row gets.

    split: where its rows are listed. start: frames before it belong to tuning; they are neither driven nor scored.
    ref_index, w_ref: the identity frame. full: whether the tuned generator (and the adapted stage 1, if there is one)
    is this person's. keep: return its frames.
    """

    clip: Path
    latents: Path
    wrong: Path | None
    split: str
    start: int
    ref_index: int
    w_ref: np.ndarray
    full: bool
    keep: bool


class Controls(NamedTuple):
    """What the mean_trajectory and energy rows were fitted to: the clips that stage 1 was trained on."""

    mean: np.ndarray
    energy: EnergyRidge


@dataclass(frozen=True)
class Tools:
    """Networks and fitted controls, the same for all cases. adapted, ridge: of the tuned face, where there are any.

    controls: None: of the control baselines only ground_truth, inversion and static are scored.
    """

    generator: Any
    tuned: Any | None
    model: TrajectoryPredictor
    controls: Controls | None
    every: int
    evaluation: Evaluation
    adapted: TrajectoryPredictor | None = None
    ridge: MelRidge | None = None


@dataclass(frozen=True)
class Kept:
    """Frames worth looking at: truth and the best row, uint8 (T, H, W, 3), and the sound (S,)."""

    clip: str
    row: str
    true: np.ndarray
    made: np.ndarray
    waveform: np.ndarray


def score_case(case: Case, tools: Tools) -> tuple[list[ClipScore], Kept | None]:
    """All rows of one clip; rendered once each, judged as they are made."""
    clip, codes = FrameClip.load(case.clip), LatentClip.load(case.latents)
    sound = Waveform(clip.waveform[case.start * SAMPLES_PER_FRAME :])
    total = len(clip) - case.start
    if total < 2:
        raise RunError(f"{clip.name} has no frames left to score after tuning: lower target.share.")
    adapted = tools.adapted if case.full else None
    model = adapted or tools.model
    predicted_TLD = spoken(model, sound, case.w_ref, total)

    def score(row: str, frames: Iterable[np.ndarray], split: str = case.split) -> ClipScore:
        whole = chain(
            repeat(np.zeros((8, 8, 3), np.uint8), case.start), frames
        )  # what is not scored is not looked at
        skip, also = range(case.start), "tuned" if case.full else None
        return tools.evaluation.add(row, clip, whole, case.ref_index, tools.every, skip, split, also)

    def shown(w_TLD: np.ndarray, generator: Any = tools.generator) -> Iterator[np.ndarray]:
        return render(generator, w_TLD)

    made = list(shown(predicted_TLD))  # kept: shift_5 shows the same frames later
    latents_TLD = codes.w[case.start :].astype(np.float32)
    makers: dict[str, Callable[[], Iterable[np.ndarray]]] = {
        "ground_truth": lambda: islice(iter(clip.frames), case.start, None),
        "inversion": lambda: shown(latents_TLD),
        "static": lambda: static_frames(np.asarray(clip.frames[case.ref_index]), total),
        "stage1_only": lambda: made,
    }
    if (fitted := tools.controls) is not None:
        makers |= {
            "mean_trajectory": lambda: shown(case.w_ref + mean_trajectory(fitted.mean, total)),
            "energy": lambda: shown(case.w_ref + fitted.energy(log_energy(sound.samples, total))),
            "shift_5": lambda: (made[t] for t in delayed(np.arange(total))),
        }
    if tools.controls and (wrong := case.wrong) is not None:
        makers["wrong_audio"] = lambda: shown(
            spoken(model, Waveform(FrameClip.load(wrong).waveform), case.w_ref, total)
        )
    if adapted is not None:
        makers["stage1_base"] = lambda: shown(spoken(tools.model, sound, case.w_ref, total))
    scores = [score(row, make()) for row, make in makers.items()]
    if case.full and tools.ridge is not None:
        scores.append(score_curve("ridge", clip, tools.ridge(sound, total), case.start, case.split))
    best = "stage1_only"
    if case.full and tools.tuned is not None:
        if tools.controls:
            scores.append(score("pti_truth", shown(latents_TLD, tools.tuned), "tuned"))
        best, made = "full", list(shown(predicted_TLD, tools.tuned))
        scores.append(score("full", made, "tuned"))
    if not case.keep:
        return scores, None
    true = np.stack(list(islice(iter(clip.frames), case.start, None)))
    return scores, Kept(clip.name, best, true, np.stack(made), sound.samples)


def spoken(model: TrajectoryPredictor, sound: Waveform, w_ref_LD: np.ndarray, frames: int) -> np.ndarray:
    """Speech -> W+ (T, L, D) of `frames` frames; the features are the model's own kind."""
    features = extract_features(sound, model.features, frames)
    return predict(model, features, w_ref_LD)
