"""How well stage 1 does on held-out clips, and how far its motion must be stretched to be as large as the truth's.

Shapes: F frames of all clips together, C coefficients of the displacement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from audio.features import FeatureConfig
from trajectory.data.windows import TrajectoryClip, read_clip
from trajectory.model.displacement import DisplacementSpace

Calibration = Literal["none", "scalar", "components"]
LARGEST_GAIN = (
    2.0  # AudioStyleNet's fixed factor; beyond it a displacement leaves the faces the generator knows
)


@dataclass(frozen=True)
class Report:
    """Agreement of predicted and true coefficients within clips (each clip's own mean removed).

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
        """Mean correlation, weighted by the variance that each coefficient moves in W."""
        weight = (self.scale * self.truth) ** 2
        return float((weight * self.correlation).sum() / max(weight.sum(), 1e-12))


def on_clip(
    net: nn.Module, space: DisplacementSpace, features: FeatureConfig, clip: TrajectoryClip
) -> tuple[Tensor, Tensor, Tensor]:
    """A whole clip: predicted coefficients (T, C), true displacements (T, L, D) and the identity latent (1, L, D)."""
    batch, device = read_clip(clip, features), space.offset_scale.device
    values, d, w_ref = (torch.from_numpy(x).to(device) for x in (batch.values, batch.d, batch.w_ref))
    return net(values, space.identity(w_ref))[0][0], d[0], w_ref


@torch.no_grad()
def validate(
    net: nn.Module, space: DisplacementSpace, features: FeatureConfig, clips: Sequence[TrajectoryClip]
) -> Report:
    """Runs `net` over whole clips, one at a time (memory: one clip). No clips: a report of zeros."""
    was_training = net.training
    net.eval()

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for clip in clips:
            p_TC, d_TLD, _ = on_clip(net, space, features, clip)
            yield p_TC.double().cpu().numpy(), space.encode(d_TLD).double().cpu().numpy()

    report = agreement(pairs(), space)
    net.train(was_training)
    return report


def agreement(pairs: Iterable[tuple[np.ndarray, np.ndarray]], space: DisplacementSpace) -> Report:
    """Of predicted and true coefficients (F, C) of several clips."""
    scale_C = space.offset_scale.expand(space.num_coefficients).cpu().numpy()
    sums = np.zeros((3, space.num_coefficients))  # of predicted * truth, predicted^2, truth^2
    distance, frames = 0.0, 0
    for p_FC, c_FC in pairs:
        distance += float(np.linalg.norm((p_FC - c_FC) * scale_C, axis=1).sum())
        frames += len(c_FC)
        p_FC, c_FC = p_FC - p_FC.mean(0), c_FC - c_FC.mean(0)
        sums += np.stack([(p_FC * c_FC).sum(0), (p_FC**2).sum(0), (c_FC**2).sum(0)])
    count = max(frames, 1)
    predicted, truth = np.sqrt(sums[1] / count), np.sqrt(sums[2] / count)
    correlation = sums[0] / count / np.maximum(predicted * truth, 1e-9)
    return Report(correlation, predicted, truth, scale_C, distance / count)


def gain_of(report: Report, kind: Calibration = "scalar") -> Tensor:
    """Gains (C,) >= 1 that undo regression to the mean, as far as the speech explains a coefficient.

    A least-squares prediction has std(c^) = r std(c). Coefficients that speech does not explain (r <= 0: the
    encoder's noise, head motion) must not be stretched up to that noise.
      "components": g_k = 1 + r_k^2 (std(c_k) / std(c^_k) - 1)
      "scalar": one g = sqrt(sum_k m_k std(c_k)^2 / sum_k m_k std(c^_k)^2), m_k = r_k^2 scale_k^2: the leading,
      well-explained coefficients are as large as the truth's.
    """
    r2 = np.maximum(report.correlation, 0) ** 2
    if kind == "none" or not r2.any():
        return torch.ones(len(r2))
    if kind == "scalar":
        m = r2 * report.scale**2
        ratio = (m * report.truth**2).sum() / max((m * report.predicted**2).sum(), 1e-12)
        gain = np.full(len(r2), np.sqrt(ratio))
    else:
        gain = 1 + r2 * (report.truth / np.maximum(report.predicted, 1e-9) - 1)
    return torch.tensor(gain.clip(1.0, LARGEST_GAIN), dtype=torch.float32)
