"""Validation of stage 1 by correlation, and the gain that calibrates the amplitude of its motion.

Regression shrinks unpredictable motion towards the mean, so predicted motion is smaller than true motion.
Shapes: T frames of a clip, C coefficients of the displacement, L rows of W+, D = 512.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from audio.features import FeatureConfig
from trajectory.data.windows import TrajectoryClip, read_clip
from trajectory.model.displacement import DisplacementSpace

Calibration = Literal["none", "scalar"]
LARGEST_GAIN = 2.0  # AudioStyleNet's fixed factor; beyond it faces distort


@dataclass(frozen=True)
class Agreement:
    """Agreement of predicted with true coefficients, each clip's mean removed.

    correlation: (C,) Pearson r of each coefficient, 0 where either is constant.
    predicted, truth: (C,) standard deviations. scale: (C,) weight of a coefficient in units of W.
    latent: mean || w_t - w^_t ||_2 inside the basis, in units of W.
    """

    correlation: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray
    scale: np.ndarray
    latent: float

    @property
    def score(self) -> float:
        """Mean correlation, each coefficient weighted by its variance in W."""
        weight = (self.scale * self.truth) ** 2
        return float((weight * self.correlation).sum() / max(weight.sum(), 1e-12))


def on_clip(
    net: nn.Module, space: DisplacementSpace, features: FeatureConfig, clip: TrajectoryClip
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs `net` on a clip: predicted coefficients (T, C), true displacements (T, L, D), identity latent (1, L, D)."""
    batch, device = read_clip(clip, features), space.offset_scale.device
    values, d, w_ref = (torch.from_numpy(x).to(device) for x in (batch.values, batch.d, batch.w_ref))
    return net(values, space.identity(w_ref))[0][0], d[0], w_ref


@torch.no_grad()
def validate(
    net: nn.Module, space: DisplacementSpace, features: FeatureConfig, clips: Sequence[TrajectoryClip]
) -> Agreement:
    """Runs `net` over whole clips, one at a time so that memory holds one. Without clips, all figures are zero."""
    was_training = net.training
    net.eval()
    scale_C = space.offset_scale.cpu().numpy()
    sums = np.zeros((3, space.num_coefficients))  # sums of predicted * truth, predicted^2, truth^2
    distance, frames = 0.0, 0
    for clip in clips:
        predicted, d_TLD, _ = on_clip(net, space, features, clip)
        p_TC, c_TC = (x.double().cpu().numpy() for x in (predicted, space.encode(d_TLD)))
        distance += float(np.linalg.norm((p_TC - c_TC) * scale_C, axis=1).sum())
        frames += len(c_TC)
        p_TC, c_TC = p_TC - p_TC.mean(0), c_TC - c_TC.mean(0)
        sums += np.stack([(p_TC * c_TC).sum(0), (p_TC**2).sum(0), (c_TC**2).sum(0)])
    net.train(was_training)
    covariance, *variances = sums / max(frames, 1)
    std_predicted, std_truth = np.sqrt(variances)
    r_C = covariance / np.maximum(std_predicted * std_truth, 1e-9)
    return Agreement(r_C, std_predicted, std_truth, scale_C, distance / max(frames, 1))


def gain_of(report: Agreement, kind: Calibration = "scalar") -> Tensor:
    """Gains (C,), all equal and in [1, LARGEST_GAIN], that undo the shrinkage of regression. "none": all 1.

        g = sqrt(sum_k m_k std(c_k)^2 / sum_k m_k std(c^_k)^2),   m_k = max(r_k, 0)^2 scale_k^2

    A least-squares prediction has std(c^) = r std(c). The weights m leave out coefficients that speech does not
    explain (r <= 0: the encoder's noise, head motion), whose errors a larger gain would amplify.
    """
    r2 = np.maximum(report.correlation, 0) ** 2
    if kind == "none" or not r2.any():
        return torch.ones(len(r2))
    m = r2 * report.scale**2
    ratio = (m * report.truth**2).sum() / max((m * report.predicted**2).sum(), 1e-12)
    gain = np.full(len(r2), np.sqrt(ratio))
    return torch.tensor(gain.clip(1.0, LARGEST_GAIN), dtype=torch.float32)
