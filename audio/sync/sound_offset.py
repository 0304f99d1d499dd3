"""The offset between the sound and the picture of a clip, from the lips' opening that is seen and that which a stage-1
model predicts from the sound.

An offset of o frames means that the sound is late: what is heard at frame t + o belongs to frame t of the picture.
Shapes: T frames, K = 2 LARGEST + 1 lags, S samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audio.timing import SAMPLES_PER_FRAME

LARGEST = 10  # frames, 0.4 s: the largest offset that is looked for
LEAST_FRAMES = 25  # frames with a face that a comparison needs
# An estimate is used if its correlation exceeds the median over all lags by this much
# (docs/models/stage1.md).
LEAST_CERTAINTY = 0.3


@dataclass(frozen=True)
class SoundOffset:
    """frames: the offset, to a fraction of a frame. correlation: at that lag. certainty: how far the correlation exceeds
    the median over all lags.
    """

    frames: float
    correlation: float
    certainty: float

    @property
    def certain(self) -> bool:
        return self.certainty >= LEAST_CERTAINTY


def lag_correlations(heard_T: np.ndarray, seen_T: np.ndarray, known_T: np.ndarray) -> np.ndarray | None:
    """Correlation of the predicted opening, at lags -LARGEST .. LARGEST, with the seen one: (K,).

    known: where the seen opening was measured. None for a clip in which fewer than LEAST_FRAMES frames can be compared
    at every lag, or in which one of the curves is constant.
    """
    inside = slice(LARGEST, len(seen_T) - LARGEST)
    known = known_T[inside]
    if len(seen_T) <= 2 * LARGEST or known.sum() < LEAST_FRAMES:
        return None
    heard_KT = np.lib.stride_tricks.sliding_window_view(heard_T, len(seen_T) - 2 * LARGEST)[:, known]
    seen = seen_T[inside][known]
    heard_KT = heard_KT - heard_KT.mean(axis=1, keepdims=True)
    seen = seen - seen.mean()
    scale_K = np.linalg.norm(heard_KT, axis=1) * np.linalg.norm(seen)
    return heard_KT @ seen / scale_K if scale_K.min() > 0 else None


def sound_offset(curves: Sequence[np.ndarray]) -> SoundOffset:
    """The common offset of clips recorded in the same way: the peak of the mean of their lag_correlations, refined by a
    parabola through its neighbours.
    """
    mean_K = np.mean(curves, axis=0)
    peak = int(mean_K.argmax())
    refined = 0.0
    if 0 < peak < len(mean_K) - 1:
        before, at, after = mean_K[peak - 1 : peak + 2]
        curvature = before - 2 * at + after
        refined = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
    height = float(mean_K[peak])
    return SoundOffset(peak - LARGEST + refined, height, height - float(np.median(mean_K)))


def shifted(samples_S: np.ndarray, frames: float) -> np.ndarray:
    """The sound moved earlier by `frames` (later, if negative), with silence at the end that is left open."""
    count = round(frames * SAMPLES_PER_FRAME)
    if count >= 0:
        return np.pad(samples_S[count:], (0, min(count, len(samples_S))))
    return np.pad(samples_S[:count], (min(-count, len(samples_S)), 0))
