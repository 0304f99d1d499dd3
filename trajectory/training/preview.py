"""A preview of a validation clip for TensorBoard: a strip of frames, and the opening of the lips over time.

Shapes: T frames of the clip, L rows of W+, D = 512, C coefficients, H = W = resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from audio.features import FeatureConfig
from audio.timing import FPS
from stylegan2.protocol import Generator
from stylegan2.render import render
from trajectory.data.windows import TrajectoryClip
from trajectory.model.displacement import DisplacementSpace
from trajectory.training.amplitude_calibration import on_clip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRIP = 6  # frames


@dataclass(frozen=True)
class Preview:
    """strip: uint8 (2 H, STRIP * W, 3), frames of the true latents above those of the predicted ones, evenly spaced.
    opening: the lips' opening over time, read from both by the lip axis, in inter-ocular distances about its mean."""

    strip: np.ndarray
    opening: Figure


class PreviewMaker:
    """preview(net, space, lip_axis) -> Preview of the first validation clip, without amplitude calibration.

    lip_axis: (C,) of trajectory.losses.lip_loss.fit_lip_axis.
    """

    def __init__(
        self, generator: Generator, clips: Sequence[TrajectoryClip], features: FeatureConfig
    ) -> None:
        self.generator, self.clip, self.features = generator, clips[0], features
        self.chosen = np.linspace(0, self.clip.num_frames - 1, STRIP).round().astype(int)
        self.true: np.ndarray | None = None  # the upper half of the strip, rendered once

    @torch.no_grad()
    def __call__(self, net: nn.Module, space: DisplacementSpace, lip_axis_C: Tensor) -> Preview:
        was_training = net.training
        c_TC, d_TLD, w_ref = on_clip(net.eval(), space, self.features, self.clip)
        net.train(was_training)
        if self.true is None:
            self.true = self._strip(w_ref + d_TLD)
        strip = np.concatenate([self.true, self._strip(w_ref + space.decode(c_TC))])
        return Preview(strip, self._opening(space.encode(d_TLD), c_TC, lip_axis_C.cpu().numpy()))

    def _strip(self, w_TLD: Tensor) -> np.ndarray:
        return np.concatenate(list(render(self.generator, w_TLD[self.chosen].float())), axis=1)

    def _opening(self, true_TC: Tensor, predicted_TC: Tensor, lip_axis_C: np.ndarray) -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 3), layout="constrained")
        axes = figure.subplots()
        seconds_T = np.arange(len(true_TC)) / FPS
        for name, c_TC in (("inverted", true_TC), ("predicted", predicted_TC)):
            opening_T = c_TC.float().cpu().numpy() @ lip_axis_C
            axes.plot(seconds_T, opening_T - opening_T.mean(), label=name)
        axes.set_title(self.clip.name, parse_math=False)  # a $ in a name starts no formula
        axes.set(xlabel="seconds", ylabel="opening / inter-ocular distance")
        axes.legend()
        return figure
