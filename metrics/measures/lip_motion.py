"""Lip motion over time: lip closures, the best lag between two curves, and the gain over a frozen face.

Curves are (T,), one value per frame, in units of the inter-ocular distance. The distances per frame (LMD, aperture, width)
and the correlation at lag 0 are defined in encoders.geometry.
"""

import numpy as np

from encoders.geometry import MOUTH, correlation

CLOSED = 0.03  # lips count as closed below this aperture, in inter-ocular distances
# lip_gain has no value where its denominator, in px of the 256 px crop, is below this: lmd_mouth is reported to 0.01 px,
# and at 0.2 px an error of two such units already changes lip_gain by 0.1.
LEAST_DENOMINATOR = 0.2
LAGS = 15  # the best lag is searched from -15 to 15 frames


def uncentred_mouth_distance(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Mean over points 48-67 of |a_i - b_i|, (T, 68, 2) twice -> (T,) px. It also grows if only the head is displaced.

    The LMD of Chen et al., "Lip Movements Generation at a Glance", ECCV 2018, section 4, on the mouth's points.
    """
    difference = np.asarray(predicted, dtype=np.float64) - np.asarray(true, dtype=np.float64)
    return np.linalg.norm(difference[..., MOUTH, :], axis=-1).mean(axis=-1)


def closures(aperture: np.ndarray) -> list[tuple[int, int]]:
    """Lip closures of an aperture curve (T,): frame spans [start, end) of closed lips that follow open lips."""
    closed = np.concatenate([[False], aperture < CLOSED, [False]]).astype(np.int8)
    edges = np.diff(closed)
    spans = zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True)
    return [(start, end) for start, end in spans if bool((aperture[:start] >= CLOSED).any())]


def closure_recall(predicted: np.ndarray, true: np.ndarray) -> float | None:
    """Share of the true closures that overlap a predicted closure, with a tolerance of one frame on either side.

    Predicted closures are defined in the same way as true ones, so a mouth that never opens has none. NaN (no detected
    face) is neither open nor closed. None if the truth has no closure. predicted, true: apertures (T,).
    """
    if predicted.shape != true.shape or predicted.ndim != 1:
        raise ValueError(f"expected two curves of one length, got {predicted.shape} and {true.shape}")
    true_spans = closures(true)
    if not true_spans:
        return None
    predicted_spans = closures(predicted)
    # Whether [start - 1, end + 1) and some predicted [a, b) share a frame
    hit = [any(a < end + 1 and start - 1 < b for a, b in predicted_spans) for start, end in true_spans]
    return float(np.mean(hit))


def lip_gain(row: float | None, static: float | None, inversion: float | None) -> float | None:
    """(static - row) / (static - inversion) of the three rows' lmd_mouth: 0 for a frozen face, 1 for the inverted truth.

    None if a figure is missing or the denominator is below LEAST_DENOMINATOR.
    """
    denominator = lip_gain_denominator(static, inversion)
    if row is None or static is None or denominator is None or denominator < LEAST_DENOMINATOR:
        return None
    return (static - row) / denominator


def lip_gain_denominator(static: float | None, inversion: float | None) -> float | None:
    """static - inversion of the two rows' lmd_mouth: what inversion gains over the frozen face, px."""
    return None if static is None or inversion is None else static - inversion


def best_lag(predicted: np.ndarray, true: np.ndarray, most: int = LAGS) -> tuple[float, float | None]:
    """(highest correlation over lags -most .. most, its lag in frames); curves (T,); positive lag = prediction is late.

    r(l) = corr(predicted[t + l], true[t]) over the frames that both have; |l| is at most half the clip. Of equal maxima
    the smallest |l| is returned; a constant curve gives (0, None). The correlation says nothing about a constant delay, so
    it must be read together with the lag.
    """
    most = min(most, len(true) // 2)
    best: tuple[float, float | None] = (0.0, None)
    for lag in sorted(range(-most, most + 1), key=abs):
        late, early = max(lag, 0), max(-lag, 0)
        a, b = predicted[late : len(predicted) - early], true[early : len(true) - late]
        value = correlation(a, b)
        if value > best[0] + 1e-9:
            best = value, float(lag)
    return best
