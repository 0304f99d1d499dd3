"""The lips' opening as a linear reading of displacement coefficients, and the loss that keeps its rhythm.

    o_t ~ <a, c_t> + const        L_lip = mean over windows of 1 - r(<a, c>, <a, c^>),  r = Pearson's correlation

The latent distance weighs every direction of W+ by how far it moves, so a small gain in the cheeks pays for lips that
open late. This term (ours, not the paper's) asks only when and how far the lips open relative to the same window.

Shapes: N clips, T frames, C coefficients.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from trajectory.model.displacement import TrajectoryError

RIDGE = 0.01  # of a coefficient's unit variance: what speaks for one clip only stays small
STILL = 0.02  # lips that move less than this (of the inter-ocular distance) have no rhythm to keep


def fit_lip_axis(clips: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """a (C,) float32 from the training clips' (coefficients (T, C), opening (T,)), each clip's own mean removed.

    opening: encoders.geometry.aperture. TrajectoryError without a frame.
    """
    pairs = [(c - c.mean(0), o - o.mean()) for c, o in clips if len(c)]
    if not pairs:
        raise TrajectoryError(
            "no face was found in any training frame, so losses.lip has nothing to go by: set it to 0"
        )
    x_FC = np.concatenate([c for c, _ in pairs]).astype(np.float64)
    o_F = np.concatenate([o for _, o in pairs])
    # The same solution from whichever system is smaller: (X'X + k)^-1 X' = X' (XX' + k)^-1.
    if len(x_FC) < x_FC.shape[1]:
        axis = x_FC.T @ np.linalg.solve(x_FC @ x_FC.T + RIDGE * len(x_FC) * np.eye(len(x_FC)), o_F)
    else:
        axis = np.linalg.solve(x_FC.T @ x_FC + RIDGE * len(x_FC) * np.eye(x_FC.shape[1]), x_FC.T @ o_F)
    return axis.astype(np.float32)


def lip_loss(
    predicted_NTC: Tensor, target_NTC: Tensor, axis_C: Tensor, mask_NT: Tensor | None = None
) -> Tensor:
    """1 - r of the lips' opening, the mean over windows; r counts the frames where mask is true.

    r = cov / sqrt(var var^ + STILL^4): a window in which nothing moves gives r = 0 and no gradient to speak of.
    """
    mask_NT = torch.ones_like(target_NTC[..., 0], dtype=torch.bool) if mask_NT is None else mask_NT
    weight_NT = mask_NT / mask_NT.sum(1, keepdim=True).clamp_min(1)

    def centred(c_NTC: Tensor) -> Tensor:
        opening_NT = c_NTC @ axis_C
        return opening_NT - (weight_NT * opening_NT).sum(1, keepdim=True)

    o_NT, p_NT = centred(target_NTC), centred(predicted_NTC)
    covariance, variance_o, variance_p = ((weight_NT * x).sum(1) for x in (o_NT * p_NT, o_NT**2, p_NT**2))
    return (1 - covariance / (variance_o * variance_p + STILL**4).sqrt()).mean()
