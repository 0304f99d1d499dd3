"""What the lips do over time: correlations, closures, and the gain over a frozen face.

Distances per frame (LMD, the mouth's, aperture, width) and the correlation of two curves are encoders.geometry's. Curves are (T,), T frames, in
units of the inter-ocular distance. Correlations are taken at lag 0: a constant delay is not free.
"""

import numpy as np

from encoders.geometry import correlation, inter_ocular
from encoders.lmd import mouth_distance

CLOSED = 0.03  # aperture below this share of the inter-ocular distance counts as closed lips
LAGS = 15  # frames searched either way for the best lag


def mouth_distance_iod(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """lmd_mouth over the true inter-ocular distance of the same frame: (T, 68, 2) twice -> (T,), no unit."""
    return mouth_distance(predicted, true) / inter_ocular(true)


def closures(aperture: np.ndarray, threshold: float = CLOSED) -> list[tuple[int, int]]:
    """Lip closures of one curve (T,): frame spans [start, end) below the threshold, after having been above it."""
    closed = np.concatenate([[False], aperture < threshold, [False]]).astype(np.int8)
    edges = np.diff(closed)
    spans = zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True)
    return [(start, end) for start, end in spans if bool((aperture[:start] >= threshold).any())]


def closure_recall(predicted: np.ndarray, true: np.ndarray, threshold: float = CLOSED) -> float | None:
    """Share of the true closures during which, give or take one frame, the predicted lips are closed.

    A prediction closes its lips under the same definition as the truth: after having been above the threshold.
    So a mouth that is shut throughout closes nothing. NaN (no detected face) is neither open nor closed.
    None if the truth never closes its lips. predicted, true: apertures (T,).
    """
    if predicted.shape != true.shape or predicted.ndim != 1:
        raise ValueError(f"expected two curves of one length, got {predicted.shape} and {true.shape}")
    wanted = closures(true, threshold)
    if not wanted:
        return None
    made = closures(predicted, threshold)
    # [start - 1, end + 1) and [a, b) share a frame
    hit = [any(a < end + 1 and start - 1 < b for a, b in made) for start, end in wanted]
    return float(np.mean(hit))


def lip_gain(row: float | None, static: float | None, inversion: float | None) -> float | None:
    """(lmd_mouth of static - of the row) / (of static - of inversion): 0 a frozen face, 1 the inverted truth.

    None where a figure is missing or where inversion is no better than the frozen face.
    """
    if row is None or static is None or inversion is None or static - inversion <= 0:
        return None
    return (static - row) / (static - inversion)


def best_lag(predicted: np.ndarray, true: np.ndarray, most: int = LAGS) -> tuple[float, float | None]:
    """(highest correlation over the lags -most .. most, that lag in frames); curves (T,), positive = late.

    r(l) = corr(predicted[t + l], true[t]) over the frames that both have; at most half the clip is shifted away.
    Of equal maxima the smallest shift counts. A constant gives (0, None). The correlation alone is blind to a
    constant lag, so it is never to be read without the lag beside it.
    """
    most = min(most, len(true) // 2)
    found: tuple[float, float | None] = (0.0, None)
    for lag in sorted(range(-most, most + 1), key=abs):
        late, early = max(lag, 0), max(-lag, 0)
        a, b = predicted[late : len(predicted) - early], true[early : len(true) - late]
        value = correlation(a, b)
        if value > found[0] + 1e-9:
            found = value, float(lag)
    return found
