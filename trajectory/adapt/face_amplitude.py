"""Gain and shift of the lips for a face without speech of its own, from frames that its generator renders (ours).

    c' = g c + δ v,    v = l / <l, l>

l reads the lips' opening from coefficients (trajectory.losses.lip_loss); v is how uncorrelated coefficients of unit variance,
which those of a DisplacementSpace are on its training data, change with that opening. With δ the identity latent's frame
shows the lips as far open as the face's own picture: a photo of nearly closed lips often becomes a face that presses them
together, which then opens them too late and half as far. With g the opening in the frames changes as much as the one that
is put in; where it changes more by itself, g is 1. Shapes: K frames, C coefficients, L rows of W+, D = 512.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trajectory.adapt.lip_response import RenderedOpening, lip_response
from trajectory.model.predictor import TrajectoryPredictor
from trajectory.training.amplitude_calibration import LARGEST_GAIN

REACH = 2.0  # largest shift, in standard deviations of the lips' opening in the model's training data
STEPS = np.linspace(-REACH, REACH, 9)


@dataclass(frozen=True)
class FaceAmplitude:
    """gain: g. shift: δ, inter-ocular distances."""

    gain: float = 1.0
    shift: float = 0.0


@torch.no_grad()
def face_amplitude(
    model: TrajectoryPredictor, w_ref: np.ndarray, opening: float, rendered_opening: RenderedOpening
) -> FaceAmplitude:
    """Measures both in 16 frames. w_ref (L, D): the identity latent. opening: of the lips in the face's picture,
    |p62 - p66| / inter-ocular distance. Without faces in the frames, or an axis in the model, nothing is changed.
    """
    if model.lip_axis is None:
        return FaceAmplitude()
    l_C = model.lip_axis
    v_C, deviation = _direction(l_C), float(l_C.norm())
    zero_LD = model.space.decode(torch.zeros_like(l_C))

    def opening_at(o_K: np.ndarray, start_LD: torch.Tensor) -> np.ndarray:
        d_KLD = model.space.decode(torch.from_numpy(o_K).to(l_C)[:, None] * v_C) - zero_LD
        return rendered_opening((torch.from_numpy(w_ref).to(l_C) + start_LD + d_KLD).cpu().numpy())

    o_K = STEPS * deviation
    shift = _crossing(o_K, opening_at(o_K, torch.zeros_like(zero_LD)), opening)
    # Predicted frames lie about the mean displacement, decode(0). Lips are seldom far more closed than on average.
    o_K = o_K[o_K >= -deviation]
    slope = lip_response(o_K, opening_at(o_K + shift, zero_LD), 0.0).slope
    return FaceAmplitude(float(np.clip(1 / max(slope, 1e-6), 1.0, LARGEST_GAIN)), shift)


def with_amplitude(model: TrajectoryPredictor, amplitude: FaceAmplitude) -> TrajectoryPredictor:
    """A copy of the model with this gain and shift; the given model is not changed."""
    changed = copy.deepcopy(model)
    if changed.lip_axis is not None:
        last: Any = changed.net.decoder[-1]
        with torch.no_grad():
            changed.gain.mul_(amplitude.gain)
            last.bias.add_(amplitude.shift * _direction(changed.lip_axis) / changed.gain)
    return changed


def _direction(l_C: torch.Tensor) -> torch.Tensor:
    """v (C,), of which <l, v> = 1."""
    return l_C / l_C.square().sum()


def _crossing(o_K: np.ndarray, rendered_K: np.ndarray, opening: float) -> float:
    """The o nearest to 0 at which the rendered opening, interpolated, is `opening`; the nearer end if it is at none."""
    found = np.isfinite(rendered_K)
    if not found.any():
        return 0.0
    o_K, excess_K = o_K[found], rendered_K[found] - opening
    at = np.flatnonzero(np.diff(np.sign(excess_K)) != 0)
    if not len(at):
        return float(o_K[np.abs(excess_K).argmin()])
    crossings = o_K[at] - excess_K[at] * (o_K[at + 1] - o_K[at]) / (excess_K[at + 1] - excess_K[at])
    return float(crossings[np.abs(crossings).argmin()])
