"""L_lpips of stage 1: the perceptual distance between the rendered prediction and the true frame.

    L_lpips = LPIPS(G(w_ref + d^_t), G(w_t))

Rendering takes a forward and a backward pass of the generator, so only one frame of a batch is rendered, every
losses.image_every steps. The weights of generator and distance get no gradient.

Shapes: N clips, T frames, L rows of W+, D = 512, C coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from encoders.records import FrameClip
from stylegan2.images import resize, to_tensor
from stylegan2.protocol import Generator
from trajectory.data.windows import Place, TrajectoryClip
from trajectory.losses.stage1_losses import LossConfig
from trajectory.model.displacement import DisplacementSpace, TrajectoryError

Distance = Callable[[Tensor, Tensor], Tensor]  # images (N, 3, H, W) twice -> (N,)


class RenderedLoss:
    """The unweighted L_lpips of one frame of a batch.

    The target is the inverted frame G(w_t), which the generator can reach, or with losses.real_target the camera's frame.
    """

    def __init__(self, generator: Generator, losses: LossConfig, perceptual: Distance) -> None:
        self.generator, self.losses, self.perceptual = generator, losses, perceptual
        for part in (generator, perceptual):
            if isinstance(part, nn.Module):
                part.eval().requires_grad_(False)

    def __call__(
        self,
        coefficients_NTC: Tensor,
        d_NTLD: Tensor,
        w_ref_NLD: Tensor,
        mask_NT: Tensor,
        space: DisplacementSpace,
        rng: np.random.Generator,
        places: Sequence[Place] = (),
    ) -> Tensor:
        """rng draws the window and, inside its mask, the frame. places: of each window, for losses.real_target."""
        n = int(rng.integers(len(coefficients_NTC)))
        t = int(rng.integers(int(mask_NT[n].sum())))
        predicted = self.generator.synthesis((w_ref_NLD[n] + space.decode(coefficients_NTC[n, t]))[None])
        with torch.no_grad():
            if self.losses.real_target:
                target = _camera_frame(*places[n], t, predicted.device)
            else:
                target = self.generator.synthesis((w_ref_NLD[n] + d_NTLD[n, t])[None])
        size = self.losses.image_size
        return self.perceptual(resize(predicted, size), resize(target, size)).mean()


def _camera_frame(clip: TrajectoryClip, first: int, t: int, device: torch.device) -> Tensor:
    """Frame t of the window that begins at `first`, (1, 3, H, W)."""
    if clip.frames is None:
        raise TrajectoryError(f"clip {clip.name} has no file of its frames, which losses.real_target needs")
    frames = FrameClip.load(clip.frames).frames
    index = int(clip.source_frame(first + t).round().clip(0, len(frames) - 1))
    return to_tensor(np.asarray(frames[index]), device)
