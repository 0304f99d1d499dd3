"""The ridge baseline: linear regression from a log-mel window to one person's lip aperture.

It is fitted to those frames of a clip that stage 2 may use, and evaluated on the others. It predicts a curve instead of
frames, so mouth_corr is its only figure. Shapes: T frames, X numbers in a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audio.features import FeatureConfig, extract_features
from audio.waveform import Waveform
from encoders.geometry import aperture, correlation
from encoders.records import FrameClip
from encoders.ridge_regression import cross_validated
from metrics.scoring.row_accumulator import MEANS, ClipScore

if TYPE_CHECKING:
    from sklearn.linear_model import Ridge

WINDOW = FeatureConfig(n_mels=40, context_ms=280)  # three frames on either side, as in stage 1


@dataclass(frozen=True)
class MelRidge:
    """Speech -> aperture (T,). The features are normalised by the clip's own loudness and spectrum."""

    ridge: Ridge

    def __call__(self, sound: Waveform, frames: int) -> np.ndarray:
        return self.ridge.predict(_windows(sound, frames))


def _windows(sound: Waveform, frames: int) -> np.ndarray:
    """Log-mel windows (T, X) float64."""
    return extract_features(sound, WINDOW, frames).values.reshape(frames, -1).astype(np.float64)


def fit_lips(sound: Waveform, aperture_T: np.ndarray, known_T: np.ndarray) -> MelRidge:
    """aperture_T: true aperture; known_T: whether it is known. ValueError for too few known frames (encoders.ridge_regression)."""
    known = np.asarray(known_T, bool)
    x_TX = _windows(sound, len(aperture_T))[known]
    return MelRidge(cross_validated(x_TX, np.asarray(aperture_T)[known]))


def score_curve(
    row: str, clip: FrameClip, predicted_T: np.ndarray, start: int, split: str | None = None
) -> ClipScore:
    """Scores a row that predicts only the aperture of frames start .. T - 1: all figures but mouth_corr are None.

    Frames without true landmarks are left out, as in metrics.scoring.score_clips.
    """
    known = np.asarray(clip.detected, bool)[start:]
    true = aperture(np.asarray(clip.landmarks)[start:][known])
    figures: dict[str, float | None] = dict.fromkeys(MEANS)
    if known.any():
        figures["mouth_corr"] = correlation(predicted_T[known], true)
    return ClipScore(
        *(row, split or clip.split, clip.name, len(known), figures, predicted_T[known], true),
        speaker=clip.speaker,
        error=np.full(len(known), np.nan),
    )
