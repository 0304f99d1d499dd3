"""The ridge row: log-mel window -> lip aperture, what one person's speech tells a straight line about their lips.

Fitted on the frames of a clip that stage 2 may use, and read on the others. It predicts one curve and no frames, so it
has a mouth_corr and nothing else. Shapes: T frames, X numbers in a window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge

from audio.features import FeatureConfig, extract_features
from audio.waveform import Waveform
from encoders.geometry import aperture, correlation
from encoders.records import FrameClip
from encoders.ridge_regression import cross_validated
from metrics.scoring.clip_score import MEANS, ClipScore

WINDOW = FeatureConfig(n_mels=40, context_ms=280)  # three frames on either side, as stage 1 hears


@dataclass(frozen=True)
class MelRidge:
    """Speech -> aperture (T,); the sound is normalised by its own loudness and spectrum."""

    ridge: Ridge

    def __call__(self, sound: Waveform, frames: int) -> np.ndarray:
        return self.ridge.predict(windows(sound, frames))


def windows(sound: Waveform, frames: int) -> np.ndarray:
    """(T, X) float64."""
    return extract_features(sound, WINDOW, frames).values.reshape(frames, -1).astype(np.float64)


def fit_lips(sound: Waveform, aperture_T: np.ndarray, known_T: np.ndarray) -> MelRidge:
    """aperture_T: true lips; known_T: frames in which they were found. ValueError for too few (encoders.ridge_regression)."""
    known = np.asarray(known_T, bool)
    x_TX = windows(sound, len(aperture_T))[known]
    return MelRidge(cross_validated(x_TX, np.asarray(aperture_T)[known]))


def score_curve(
    row: str, clip: FrameClip, predicted_T: np.ndarray, start: int, split: str | None = None
) -> ClipScore:
    """A row that predicts the aperture of frames start .. T - 1 and nothing else: all but mouth_corr is None.

    Frames whose truth has no landmarks are left out, as metrics.scoring.score_clips leaves them out.
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
