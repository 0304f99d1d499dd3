"""Ridge regression for little data and many inputs, with the penalty chosen on stretches of time that were left out.

    y ~ b + (x - m) W,    W = X' (X X' + k I)^-1 Y        X, Y centred; one kernel matrix serves all penalties

Shapes: T frames in their order, X inputs, Y outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PENALTIES = tuple(
    10.0**p for p in (-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2)
)  # of the mean squared length of x - m
FOLDS = 5
LEAST = 4 * FOLDS  # frames


@dataclass(frozen=True)
class Ridge:
    """weights (X, Y), mean (X,), bias (Y,); penalty: k over the mean squared length of x - m."""

    weights: np.ndarray
    mean: np.ndarray
    bias: np.ndarray
    penalty: float

    def __call__(self, x_TX: np.ndarray) -> np.ndarray:
        return (x_TX - self.mean) @ self.weights + self.bias


def fit_ridge(x_TX: np.ndarray, y_TY: np.ndarray, penalty: float) -> Ridge:
    """The regression of one penalty."""
    mean, bias = x_TX.mean(axis=0), y_TY.mean(axis=0)
    centred = x_TX - mean
    gram = centred @ centred.T
    # Relative to the inputs' size, so that the same penalties suit loud and quiet, long and short clips.
    strength = penalty * max(float(np.trace(gram)) / len(gram), 1e-12)
    weights = centred.T @ np.linalg.solve(gram + strength * np.eye(len(gram)), y_TY - bias)
    return Ridge(weights, mean, bias, penalty)


def cross_validated(
    x_TX: np.ndarray, y_TY: np.ndarray, reading_Y: np.ndarray | None = None
) -> tuple[Ridge, np.ndarray]:
    """The regression with the penalty that predicts left-out stretches best, and those predictions (T, Y).

    FOLDS consecutive stretches are each predicted from all others: single frames would have their answer beside them.
    reading_Y: the error that counts is that of <reading, y> (None: the sum over all outputs). ValueError for fewer
    than LEAST frames.
    """
    if len(x_TX) != len(y_TY) or len(x_TX) < LEAST:
        raise ValueError(
            f"a ridge regression needs {LEAST} frames or more, got {len(x_TX)} and {len(y_TY)} targets"
        )
    x_TX, y_TY = np.asarray(x_TX, np.float64), np.asarray(y_TY, np.float64)
    out_TY = np.zeros((len(PENALTIES), *y_TY.shape))
    for out in np.array_split(np.arange(len(x_TX)), FOLDS):
        rest = np.setdiff1d(np.arange(len(x_TX)), out)
        for i, penalty in enumerate(PENALTIES):
            out_TY[i, out] = fit_ridge(x_TX[rest], y_TY[rest], penalty)(x_TX[out])
    error = out_TY - y_TY
    read = error if reading_Y is None else error @ reading_Y
    best = int(np.square(read).reshape(len(PENALTIES), -1).sum(axis=1).argmin())
    return fit_ridge(x_TX, y_TY, PENALTIES[best]), out_TY[best]
