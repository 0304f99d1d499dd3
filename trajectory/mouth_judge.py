"""lmd_mouth of validation frames while training: a stand-in for the judge of the report that needs no detector.

Both faces are rendered, of the predicted and of the true code, and read by the landmark network that steers fits
(encoders.features.landmark_net). The report's judge is dlib, on rendered frames against the camera's: figures are not the same.
Shapes: F frames of all clips, T frames of one, L rows of W+, D = 512.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from audio.features import FeatureConfig
from stylegan2.protocol import Generator
from trajectory.data.windows import TrajectoryClip
from trajectory.losses.rendered_losses import lip_distance
from trajectory.model.displacement import DisplacementSpace
from trajectory.training.amplitude_calibration import on_clip

CHUNK = 4  # frames rendered at once


class MouthJudge:
    """judge(net, space) -> mean distance of the mouth's landmarks in px of the 256 px crop, before any gain.

    frames: of the validation clips, evenly spaced; the true ones are rendered once.
    """

    def __init__(
        self,
        generator: Generator,
        landmarks: Callable[[Tensor], Tensor],
        clips: Sequence[TrajectoryClip],
        features: FeatureConfig,
        frames: int = 24,
    ) -> None:
        self.generator, self.landmarks, self.features = generator, landmarks, features
        total = sum(clip.num_frames for clip in clips)
        chosen = np.unique(np.linspace(0, max(total - 1, 0), min(total, frames)).round().astype(int))
        first, self.chosen = 0, list[tuple[TrajectoryClip, Tensor]]()
        for clip in clips:
            inside = chosen[(chosen >= first) & (chosen < first + clip.num_frames)] - first
            first += clip.num_frames
            if len(inside):
                self.chosen.append((clip, torch.from_numpy(inside)))
        self.true: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, net: nn.Module, space: DisplacementSpace) -> float:
        was_training, distances = net.training, []
        net.eval()
        for clip, index in self.chosen:
            c_TC, d_TLD, w_ref = on_clip(net, space, self.features, clip)
            if clip.name not in self.true:
                self.true[clip.name] = self._read(w_ref + d_TLD[index])
            predicted = self._read(w_ref + space.decode(c_TC[index]))
            distances.append(lip_distance(predicted, self.true[clip.name]))
        net.train(was_training)
        return float(torch.cat(distances).mean())

    def _read(self, w_TLD: Tensor) -> Tensor:
        """Landmarks (T, 68, 2) of rendered codes."""
        return torch.cat([self.landmarks(self.generator.synthesis(w)) for w in w_TLD.split(CHUNK)])
