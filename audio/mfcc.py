"""Mel-frequency cepstral coefficients (MFCC) by the conventions of python_speech_features, as ATVGnet uses them.

S samples, R rows (one per hop), B bands, M coefficients.
"""

from functools import lru_cache

import numpy as np

from audio.log_mel import analysis_windows, in_blocks
from audio.timing import RATE

MFCC_WINDOW = 400  # samples: 25 ms, rectangular
MFCC_FFT = 512


def mfcc(
    samples_S: np.ndarray,
    hop: int,
    n_filters: int,
    n_coefficients: int,
    lifter: int,
    preemphasis: float,
    beyond: int = 0,
) -> np.ndarray:
    """Liftered cepstra c_1 ... c_M of B triangular bands: float32 (R + 2 beyond, M), rows as those of log_mel.

    c_n = (1 + L/2 sin(pi n / L)) * DCT-II(ln(filters . |FFT|^2 / 512))_n, with L the lifter (0: none)
    """
    import scipy.fft

    windows_RN = analysis_windows(samples_S, MFCC_WINDOW, hop, preemphasis, beyond)
    filters_FB = triangular_filters(n_filters).T
    bands_RB = in_blocks(
        windows_RN, lambda x: (np.abs(np.fft.rfft(x, MFCC_FFT, axis=1)) ** 2 / MFCC_FFT) @ filters_FB
    )
    # The floor replaces the library's eps at zero energy; it is well below one step of 16-bit sound.
    cepstra_RB = np.asarray(scipy.fft.dct(np.log(np.maximum(bands_RB, 1e-12)), type=2, axis=1, norm="ortho"))
    n = np.arange(1, n_coefficients + 1)
    lift_M = 1 + lifter / 2 * np.sin(np.pi * n / lifter) if lifter > 0 else np.ones(len(n))
    return (cepstra_RB[:, 1 : n_coefficients + 1] * lift_M).astype(np.float32)


@lru_cache(maxsize=8)
def triangular_filters(n_filters: int) -> np.ndarray:
    """HTK-mel triangles with corners rounded down to FFT bins, 0-8000 Hz: (B, 257)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, n_filters + 2) / 2595) - 1)
    corners = np.floor((MFCC_FFT + 1) * hertz / RATE)
    bins_F = np.arange(MFCC_FFT // 2 + 1)
    filters_BF = np.zeros((n_filters, len(bins_F)), np.float32)
    for band, (left, centre, right) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        rising, falling = (bins_F >= left) & (bins_F < centre), (bins_F >= centre) & (bins_F < right)
        filters_BF[band, rising] = (bins_F[rising] - left) / (centre - left)
        filters_BF[band, falling] = (right - bins_F[falling]) / (right - centre)
    return filters_BF
