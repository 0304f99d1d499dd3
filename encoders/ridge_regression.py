"""Ridge regression of one curve over time on many inputs, with the penalty chosen by cross-validation.

Shapes: T frames in their order, X inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.linear_model import Ridge

# Penalties relative to the mean squared length of a centred input, so that the same values suit loud and quiet clips.
PENALTIES = tuple(10.0**p for p in (-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2))
FOLDS = 5
LEAST = 4 * FOLDS  # frames


def fit_ridge(x_TX: np.ndarray, y_T: np.ndarray, penalty: float) -> Ridge:
    """y ~ b + x s with s, b = argmin |y - b - x s|^2 + penalty mean_t |x_t - mean x|^2 |s|^2."""
    from sklearn.linear_model import Ridge

    scale = float(np.square(x_TX - x_TX.mean(axis=0)).sum(axis=1).mean())
    return Ridge(alpha=penalty * max(scale, 1e-12)).fit(x_TX, y_T)


def left_out_predictions(x_TX: np.ndarray, y_T: np.ndarray) -> np.ndarray:
    """Predictions (T,) of regressions that were fitted without the fold of consecutive frames they predict."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold, cross_val_predict

    x_TX, y_T = np.asarray(x_TX, np.float64), np.asarray(y_T, np.float64)
    alpha = cross_validated(x_TX, y_T).alpha
    return np.asarray(cross_val_predict(Ridge(alpha=alpha), x_TX, y_T, cv=KFold(FOLDS)))


def cross_validated(x_TX: np.ndarray, y_T: np.ndarray) -> Ridge:
    """The regression whose penalty predicts left-out frames best. ValueError for fewer than LEAST frames.

    Each fold leaves out consecutive frames, because a single frame could be predicted from its neighbours.
    """
    from sklearn.model_selection import KFold

    if len(x_TX) != len(y_T) or len(x_TX) < LEAST:
        raise ValueError(
            f"a ridge regression needs {LEAST} frames or more, got {len(x_TX)} and {len(y_T)} targets"
        )
    x_TX, y_T = np.asarray(x_TX, np.float64), np.asarray(y_T, np.float64)
    errors = np.zeros(len(PENALTIES))
    for kept, left_out in KFold(FOLDS).split(x_TX):
        for i, penalty in enumerate(PENALTIES):
            predicted = fit_ridge(x_TX[kept], y_T[kept], penalty).predict(x_TX[left_out])
            errors[i] += np.square(predicted - y_T[left_out]).sum()
    return fit_ridge(x_TX, y_T, PENALTIES[int(errors.argmin())])
