"""Stage 1's losses and their weighted sum. The paper's two are `latent` and `image`; `lip` is ours.

    L = latent L_latent + lip L_lip + image L_lpips            (lower-case names: the weights in `LossConfig`)

L_lip is in trajectory/losses/lip_loss.py, L_lpips in trajectory/losses/rendered_losses.py.
Shapes: N clips, T frames, L rows of W+, D = 512, C coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trajectory.losses.lip_loss import lip_loss
from trajectory.model.displacement import DisplacementSpace


@dataclass
class LossConfig:
    """Weights of stage 1's losses (0 = off), and how they are computed."""

    latent: float = 1.0  # weight of L_latent, the distance in W+ (the paper gives no weights)
    image: float = 1.0  # weight of L_lpips, the perceptual distance of rendered frames
    # Weight of L_lip, 1 - the correlation of the lips' opening. Ours: the paper has the two losses above only.
    lip: float = 3.0
    # Whether L_lip also compares the amplitude of the lips' opening; train.calibration=none suits it.
    lip_amplitude: bool = False
    # Target of L_lpips: the inverted frame G(w_t), as in the paper, or with real_target the camera's frame.
    real_target: bool = False
    # Space of L_latent. "w": all of W+, the paper's equation. "basis": the span of the offset basis only, because no
    # coefficient can reduce the error in the other directions, which is noise of the frame encoder.
    space: Literal["w", "basis"] = "basis"
    image_every: int = 4  # steps between two computations of L_lpips, because rendering is slow (0 = never)
    image_size: int = 128  # px at which images are compared

    def __post_init__(self) -> None:
        for name in ("latent", "image", "lip"):
            if getattr(self, name) < 0:
                raise ValueError(f"losses.{name} is {getattr(self, name)}; a weight cannot be negative")
        if self.image_every < 0 or self.image_size < 16:
            raise ValueError(
                "losses.image_every cannot be negative and losses.image_size must be at least 16"
            )

    @property
    def renders(self) -> bool:
        """Whether L_lpips, which needs rendered frames, is ever computed."""
        return self.image_every > 0 and self.image > 0

    def renders_at(self, step: int) -> bool:
        """Whether L_lpips is computed at this step."""
        return self.renders and step % self.image_every == 0


def latent_loss(predicted_NTX: Tensor, target_NTX: Tensor, mask_NT: Tensor) -> Tensor:
    """L_latent = mean_t || w_t - w^_t ||_2 over the frames where mask is true. X: any trailing dimensions."""
    distance_NT = torch.linalg.vector_norm((predicted_NTX - target_NTX).flatten(2), dim=-1)
    return distance_NT[mask_NT].mean()


def stage1_losses(
    coefficients_NTC: Tensor,
    d_NTLD: Tensor,
    mask_NT: Tensor,
    space: DisplacementSpace,
    config: LossConfig,
    lip_axis_C: Tensor | None = None,
) -> dict[str, Tensor]:
    """The unweighted losses that need no rendering: "latent", and "lip" if it has a weight and its axis is given.

    "latent" is in units of W in both spaces, because coefficients are multiplied by their scale.
    """
    if config.space == "basis":
        predicted = coefficients_NTC * space.offset_scale
        target = space.encode(d_NTLD) * space.offset_scale
    else:
        predicted, target = space.decode(coefficients_NTC), d_NTLD
    losses = {"latent": latent_loss(predicted, target, mask_NT)}
    if config.lip > 0 and lip_axis_C is not None:
        losses["lip"] = lip_loss(
            coefficients_NTC, space.encode(d_NTLD), lip_axis_C, mask_NT, config.lip_amplitude
        )
    return losses


def weighted_sum(losses: Mapping[str, Tensor], config: LossConfig) -> Tensor:
    """The training loss: the sum of all losses, each times its weight in `config`."""
    return torch.stack([getattr(config, name) * value for name, value in losses.items()]).sum()
