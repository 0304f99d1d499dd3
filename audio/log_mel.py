"""Log-mel spectra: ln(mel . |STFT|) of rows that are centred between multiples of the hop.

S samples, R rows (one per hop), M mel bands, N samples in an analysis window. audio/mfcc.py shares the windows.
"""

from collections.abc import Callable
from functools import lru_cache

import librosa
import numpy as np

from audio.timing import RATE

BLOCK = 1000  # number of windows whose spectra are in memory together: 10 s
QUIET = 1e-5  # lowest floor, -100 dB of full scale


def log_mel(
    samples_S: np.ndarray,
    hop: int,
    n_fft: int,
    n_mels: int,
    fmin: float,
    fmax: float,
    preemphasis: float,
    dynamic_range_db: float | None,
    beyond: int = 0,
) -> np.ndarray:
    """ln(max(mel . |STFT|, floor)): float32 (R + 2 beyond, M), row j centred on sample (j - beyond + 1/2) hop.

    The Hann window is scaled so that a full-scale sine has a magnitude near 0.5. floor: dynamic_range_db below the
    clip's loudest band, at least QUIET; None: QUIET. beyond: number of rows of silence before and after the clip.
    """
    windows_RN = analysis_windows(samples_S, n_fft, hop, preemphasis, beyond)
    hann_N = librosa.filters.get_window("hann", n_fft).astype(np.float32)
    hann_N /= hann_N.sum()
    filters_FM = _mel_filters(n_fft, n_mels, fmin, fmax).T
    mel_RM = in_blocks(windows_RN, lambda x: np.abs(np.fft.rfft(x * hann_N, axis=1)) @ filters_FM)
    floor = QUIET
    if dynamic_range_db is not None:
        floor = max(QUIET, float(mel_RM.max()) * 10 ** (-dynamic_range_db / 20))
    return np.log(np.maximum(mel_RM, floor)).astype(np.float32)


def analysis_windows(
    samples_S: np.ndarray, width: int, hop: int, preemphasis: float, beyond: int
) -> np.ndarray:
    """Windows centred on samples (j + 1/2) hop, j = -beyond ... S / hop + beyond - 1: (R + 2 beyond, width).

    Pre-emphasis y[n] = x[n] - c x[n - 1] is applied first, also in the silence around the clip.
    """
    reach = beyond * hop + max(0, (width - hop) // 2)
    padded = np.pad(samples_S, reach + 1)
    emphasised = padded[1:] - np.float32(preemphasis) * padded[:-1]  # [i] is sample i - reach
    start = (reach - beyond * hop) + hop // 2 - width // 2
    rows = len(samples_S) // hop + 2 * beyond
    return np.lib.stride_tricks.sliding_window_view(emphasised, width)[start::hop][:rows]


def in_blocks(windows_RN: np.ndarray, bands: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """bands(windows), BLOCK rows at a time: the spectra of an hour of sound would not fit into memory."""
    rows = range(0, len(windows_RN), BLOCK)
    return np.concatenate([bands(windows_RN[first : first + BLOCK]) for first in rows])


@lru_cache(maxsize=8)
def _mel_filters(n_fft: int, n_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Slaney triangles of unit height, (M, n_fft / 2 + 1)."""
    return librosa.filters.mel(sr=RATE, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, norm=None)
