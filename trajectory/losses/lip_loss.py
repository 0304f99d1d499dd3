"""L_lip, the loss on the timing of lip motion (ours), and the linear axis that predicts lip opening from coefficients.

    o_t ~ <a, c_t> + const        L_lip = mean over windows of 1 - r(<a, c>, <a, c^>),  r = Pearson's correlation

With `amplitude`, r is replaced by 2 cov / (var + var^), the concordance correlation (Lin 1989) of centred curves, which is 1
only if the amplitudes are equal too. Pearson's r leaves the amplitude to L_latent, which cannot hold it: on GRID's s1 the
lips' predicted opening had 1.3 times the true spread.

L_latent weights each direction of W+ by the size of its motion, so directions that change large regions such as the
cheeks dominate over those of the lips. L_lip depends only on the course of the lips' opening within a window.

Shapes: N clips, T frames, F frames of all clips, C coefficients.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from trajectory.model.displacement import TrajectoryError

RIDGE = 0.01  # penalty, relative to a coefficient's unit variance; limits overfitting to single clips
STILL = 0.02  # inter-ocular distances; if the lips move less than this, the correlation tends to 0


def fit_lip_axis(clips: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """a (C,) float32 by ridge regression on the training clips.

    clips: of each, coefficients (T, C) and opening (T,) (encoders.geometry.aperture) of the frames with a face; each
    clip's own mean is removed. TrajectoryError without a frame.
    """
    pairs = [(c - c.mean(0), o - o.mean()) for c, o in clips if len(c)]
    if not pairs:
        raise TrajectoryError(
            "no face was found in any training frame, so losses.lip cannot be computed: set it to 0"
        )
    x_FC = np.concatenate([c for c, _ in pairs]).astype(np.float64)
    o_F = np.concatenate([o for _, o in pairs])
    # Solves the smaller of two equivalent systems: (X'X + k)^-1 X' = X' (XX' + k)^-1.
    if len(x_FC) < x_FC.shape[1]:
        axis = x_FC.T @ np.linalg.solve(x_FC @ x_FC.T + RIDGE * len(x_FC) * np.eye(len(x_FC)), o_F)
    else:
        axis = np.linalg.solve(x_FC.T @ x_FC + RIDGE * len(x_FC) * np.eye(x_FC.shape[1]), x_FC.T @ o_F)
    return axis.astype(np.float32)


def lip_loss(
    predicted_NTC: Tensor, target_NTC: Tensor, axis_C: Tensor, mask_NT: Tensor, amplitude: bool = False
) -> Tensor:
    """L_lip of windows (N, T, C); r is over the frames where mask is true.

    r = cov / sqrt(var var^ + STILL^4), which is 0, with a gradient near 0, in a window without motion. With `amplitude`:
    r = cov / ((var + var^) / 2 + STILL^2).
    """
    weight_NT = mask_NT / mask_NT.sum(1, keepdim=True).clamp_min(1)

    def centred(c_NTC: Tensor) -> Tensor:
        opening_NT = c_NTC @ axis_C
        return opening_NT - (weight_NT * opening_NT).sum(1, keepdim=True)

    o_NT, p_NT = centred(target_NTC), centred(predicted_NTC)
    covariance, variance_o, variance_p = ((weight_NT * x).sum(1) for x in (o_NT * p_NT, o_NT**2, p_NT**2))
    if amplitude:
        return (1 - covariance / ((variance_o + variance_p) / 2 + STILL**2)).mean()
    return (1 - covariance / (variance_o * variance_p + STILL**4).sqrt()).mean()
