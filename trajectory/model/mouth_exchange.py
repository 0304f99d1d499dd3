"""Gives the code of a frame the mouth of another code, and keeps its pose, eyes and brows.

    w' = w + sum_k (a_k(w_mouth) - a_k(w)) D_k,  k = the mouth's axes

D: the viseme basis, which moves little else than what each axis is named after; a: amplitudes of a code by least squares
over all axes, head and blink included, so that these are not taken for the mouth:

    a(w) = argmin |w - w_ref - sum_k a_k D_k|^2      (w_ref cancels)

Measured on an inverted clip of a real person, with the mouths of other frames of the same clip: the lips' aperture follows
those frames (correlation 0.8 to 0.9), and eyes, brows and nose move by 0.5 px of the 256 px crop. An exchange of the rows
3 to 7 moves them by 1.5 px, because these rows turn the head too.

Shapes: N codes, A axes, L rows of W+, D = 512.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from encoders.bases.viseme_basis import MOUTH_AXES, VisemeBasis


@dataclass(frozen=True, eq=False)
class MouthExchange:
    axes: np.ndarray  # float32 (A, L, D): the mouth's axes
    readouts: np.ndarray  # float32 (A, L, D): their scalar products with a displacement are its amplitudes

    @classmethod
    def of(cls, basis: VisemeBasis, num_rows: int) -> MouthExchange:
        """For codes of num_rows rows. Rows that the basis does not have do not move the mouth."""
        count, rows, width = basis.directions.shape
        axes = np.zeros((count, num_rows, width), np.float32)
        axes[:, :rows] = basis.directions[:, :num_rows]
        inverse = np.linalg.pinv(axes.reshape(count, -1).astype(np.float64)).T.astype(np.float32)
        mouth = [basis.names.index(axis) for axis in MOUTH_AXES]
        return cls(axes[mouth], inverse.reshape(axes.shape)[mouth])

    def __call__(self, w_NLD: np.ndarray, mouth_NLD: np.ndarray) -> np.ndarray:
        """w' (N, L, D) float32: the codes w with the mouths of the others."""
        amplitudes_NA = np.tensordot(mouth_NLD - w_NLD, self.readouts, axes=([1, 2], [1, 2]))
        return (w_NLD + np.tensordot(amplitudes_NA, self.axes, axes=1)).astype(np.float32)
