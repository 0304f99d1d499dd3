"""Losses of stage 1 in latent space, and the weights of all: the paper's two are `latent` and `image`.

Those that look at rendered frames are in trajectory/losses/rendered_losses.py.

Shapes: N clips, T frames, L rows of W+, D = 512, C coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trajectory.losses.lip_loss import lip_loss
from trajectory.model.displacement import DisplacementSpace


@dataclass
class LossConfig:
    """Weights of the terms (0 = off), and when the image term is computed.

    space: where the latent distance is taken.
      "w": || w_t - w^_t ||_2 over all of W+, the paper's equation.
      "basis": the same norm inside the span of the offset basis only, so that what no coefficient can reach
      (the frame encoder's noise in the other directions) neither dilutes nor scales the gradient.
    velocity: || w_t+1 - w_t - (w^_t+1 - w^_t) ||_2. lip: correlation of the lips' opening (trajectory/losses/lip_loss.py; ours).
    Of rendered frames: image (L_lpips), mouth (the same on 96 px around the mouth), landmark (distance in px of the
    lips' points that encoders.features.landmark_net reads), sync (1 - cosine of lips and sound by audio.sync.lip_sync_net's own network, over
    a run of sync_frames frames). Their target is the inverted frame, as the paper's, or with real_target the camera's.
    image_every: steps between two of these (0 = never); image_size: px at which images are compared.
    """

    latent: float = 1.0
    image: float = 1.0
    velocity: float = 0.0
    lip: float = 0.0
    mouth: float = 0.0
    landmark: float = 0.0
    sync: float = 0.0
    sync_frames: int = 9
    real_target: bool = False
    space: Literal["w", "basis"] = "basis"
    image_every: int = 4
    image_size: int = 128

    def __post_init__(self) -> None:
        for name in ("latent", "image", "velocity", "lip", "mouth", "landmark", "sync"):
            if getattr(self, name) < 0:
                raise ValueError(f"losses.{name} is {getattr(self, name)}; a weight cannot be negative")
        if self.sync_frames < 5:
            raise ValueError(
                f"losses.sync_frames is {self.sync_frames}; the sync network looks at 5 frames at once"
            )
        if self.space not in ("w", "basis"):
            raise ValueError(f"losses.space is {self.space!r}; it must be 'w' or 'basis'")
        if self.image_every < 0 or self.image_size < 16:
            raise ValueError(
                "losses.image_every cannot be negative and losses.image_size must be at least 16"
            )

    @property
    def renders(self) -> bool:
        """Whether any term looks at rendered frames."""
        return self.image_every > 0 and max(self.image, self.mouth, self.landmark, self.sync) > 0

    def wants_frames(self, step: int) -> bool:
        """Whether these terms are due at this step."""
        return self.renders and step % self.image_every == 0


def latent_loss(predicted_NTX: Tensor, target_NTX: Tensor, mask_NT: Tensor | None = None) -> Tensor:
    """L_latent = mean_t || w_t - w^_t ||_2 over the frames where mask is true. X: any trailing dimensions."""
    distance_NT = torch.linalg.vector_norm((predicted_NTX - target_NTX).flatten(2), dim=-1)
    return distance_NT.mean() if mask_NT is None else distance_NT[mask_NT].mean()


def velocity_loss(predicted_NTX: Tensor, target_NTX: Tensor, mask_NT: Tensor | None = None) -> Tensor:
    """mean_t || (w_t+1 - w_t) - (w^_t+1 - w^_t) ||_2: jitter costs, a constant offset does not."""
    if predicted_NTX.shape[1] < 2:
        return predicted_NTX.new_zeros(())
    both = None if mask_NT is None else mask_NT[:, 1:] & mask_NT[:, :-1]
    return latent_loss(predicted_NTX.diff(dim=1), target_NTX.diff(dim=1), both)


def stage1_losses(
    coefficients_NTC: Tensor,
    d_NTLD: Tensor,
    mask_NT: Tensor,
    space: DisplacementSpace,
    config: LossConfig,
    lip_axis_C: Tensor | None = None,
) -> dict[str, Tensor]:
    """The latent, velocity and lip terms, unweighted; the lip term only with its axis.

    The first two are in units of W whichever the space: coefficients times their scale.
    """
    if config.space == "basis":
        predicted = coefficients_NTC * space.offset_scale
        target = space.encode(d_NTLD) * space.offset_scale
    else:
        predicted, target = space.decode(coefficients_NTC), d_NTLD
    losses = {"latent": latent_loss(predicted, target, mask_NT)}
    if config.velocity > 0:
        losses["velocity"] = velocity_loss(predicted, target, mask_NT)
    if config.lip > 0 and lip_axis_C is not None:
        losses["lip"] = lip_loss(coefficients_NTC, space.encode(d_NTLD), lip_axis_C, mask_NT)
    return losses
