"""Augments windows of speech features, imitating other voices and rooms, so that stage 1 generalises to unseen
speakers.

Shapes: N windows, J feature rows (10 ms each by default), M bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import librosa
import numpy as np

from audio.features import FeatureConfig


@dataclass
class AugmentConfig:
    """Largest change of each kind, in units of normalised features; drawn anew for each training window; 0 = off.

    All are ours: the paper states no augmentation.
    """

    warp: float = 0.25  # |u| of f -> f (1 + u), as a vocal tract of another length would (log-mel only)
    gain: float = 0.3  # offset of all bins: loudness
    tilt: float = 0.5  # offset that rises linearly over the bins: timbre (log-mel only)
    noise: float = 0.3  # standard deviation of white noise

    def __post_init__(self) -> None:
        if min(self.warp, self.gain, self.tilt, self.noise) < 0:
            raise ValueError("augment: no value can be negative")
        if self.warp >= 1:
            raise ValueError(f"augment.warp is {self.warp}; it must be below 1")


def augment(
    rows_NJM: np.ndarray, config: AugmentConfig, features: FeatureConfig, rng: np.random.Generator
) -> np.ndarray:
    """Feature rows (N, J, M) -> changed copies of the same shape."""
    rows = rows_NJM.copy()
    num, _, width = rows.shape
    spectral = features.kind == "logmel"
    if spectral and config.warp:
        for n, stretch in enumerate(rng.uniform(-config.warp, config.warp, num)):
            rows[n] = rows[n] @ warp_matrix(features, 1 + stretch)
    rows += rng.uniform(-config.gain, config.gain, (num, 1, 1)).astype(np.float32)
    if spectral:
        slope = rng.uniform(-config.tilt, config.tilt, (num, 1, 1))
        rows += (slope * np.linspace(-1, 1, width)).astype(np.float32)
    if config.noise:
        level = rng.uniform(0, config.noise, (num, 1, 1)).astype(np.float32)
        rows += level * rng.standard_normal(rows.shape, dtype=np.float32)
    return rows


def warp_matrix(features: FeatureConfig, stretch: float) -> np.ndarray:
    """(M, M) float32: rows @ matrix moves the energy at f hertz to about stretch * f, interpolating between bins."""
    centres = _bin_centres(features.n_mels, features.fmin, features.fmax)
    source = np.interp(centres / stretch, centres, np.arange(features.n_mels))
    below = np.minimum(source.astype(int), features.n_mels - 2)
    matrix = np.zeros((features.n_mels, features.n_mels), np.float32)
    target = np.arange(features.n_mels)
    matrix[below, target] = 1 - (source - below)
    matrix[below + 1, target] = source - below
    return matrix


@lru_cache(maxsize=8)
def _bin_centres(n_mels: int, fmin: float, fmax: float) -> np.ndarray:
    return librosa.mel_frequencies(n_mels + 2, fmin=fmin, fmax=fmax)[1:-1]
