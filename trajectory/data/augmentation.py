"""Changes of voice and room, on feature rows: what a minute of a few voices lacks, a voice never heard needs.

Shapes: N clips, J feature rows (10 ms each by default), M bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import librosa
import numpy as np

from audio.features import FeatureConfig


@dataclass
class AugmentConfig:
    """Largest change of each kind, drawn anew for each training window (a voice once a clip, where windows
    walk through clips); 0 = off. In units of normalised features.

    warp: relative stretch of the frequency axis (vocal tract length; log-mel only): f -> f (1 + u), |u| <= warp.
    gain: offset of all bins. tilt: offset rising linearly over the bins (log-mel only). noise: std of white noise.
    mask_ms, masks: longest stretch of sound replaced by its mean, and how many of them.
    mask_bins: widest band of bins replaced by zero (log-mel only).
    """

    warp: float = 0.25
    gain: float = 0.3
    tilt: float = 0.5
    noise: float = 0.3
    mask_ms: float = 0.0
    masks: int = 1
    mask_bins: int = 0

    def __post_init__(self) -> None:
        if min(self.warp, self.gain, self.tilt, self.noise, self.mask_ms, self.masks, self.mask_bins) < 0:
            raise ValueError("augment: no value can be negative")
        if self.warp >= 1:
            raise ValueError(f"augment.warp is {self.warp}; it must be below 1")


def augment(
    rows_NJM: np.ndarray, config: AugmentConfig, features: FeatureConfig, rng: np.random.Generator
) -> np.ndarray:
    """Feature rows of N windows -> the same windows as another voice in another room might give them."""
    rows = rows_NJM.copy()
    num, length, width = rows.shape
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
    longest = int(config.mask_ms * 16 / features.hop)
    for n in range(num):
        for _ in range(config.masks if longest else 0):
            span = int(rng.integers(0, min(longest, length) + 1))
            start = int(rng.integers(0, length - span + 1))
            rows[n, start : start + span] = rows[n].mean(0)
        if spectral and config.mask_bins:
            span = int(rng.integers(0, min(config.mask_bins, width) + 1))
            start = int(rng.integers(0, width - span + 1))
            rows[n, :, start : start + span] = 0
    return rows


def warp_matrix(features: FeatureConfig, stretch: float) -> np.ndarray:
    """(M, M) float32: rows @ matrix moves what was at f hertz to about stretch * f, interpolating between bins."""
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
