"""Losses of stage 1: the paper's two (latent and perceptual), and optional ones of velocity and of the lips.

Shapes: N clips, T frames, L rows of W+, D = 512, C coefficients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from stylegan2.images import resize
from stylegan2.protocol import Generator
from trajectory.displacement import DisplacementSpace
from trajectory.lips import lip_loss


@dataclass
class LossConfig:
    """Weights of the terms (0 = off), and when the image term is computed.

    space: where the latent distance is taken.
      "w": || w_t - w^_t ||_2 over all of W+, the paper's equation.
      "basis": the same norm inside the span of the offset basis only, so that what no coefficient can reach
      (the frame encoder's noise in the other directions) neither dilutes nor scales the gradient.
    lip: correlation of the lips' opening (trajectory/lips.py; ours).
    image_every: steps between two image terms (0 = never); image_size: px at which they are compared.
    """

    latent: float = 1.0
    image: float = 1.0
    velocity: float = 0.0
    lip: float = 0.0
    space: Literal["w", "basis"] = "basis"
    image_every: int = 4
    image_size: int = 128

    def __post_init__(self) -> None:
        if min(self.latent, self.image, self.velocity, self.lip) < 0:
            raise ValueError("losses.latent, losses.image, losses.velocity and losses.lip cannot be negative")
        if self.space not in ("w", "basis"):
            raise ValueError(f"losses.space is {self.space!r}; it must be 'w' or 'basis'")
        if self.image_every < 0 or self.image_size < 16:
            raise ValueError(
                "losses.image_every cannot be negative and losses.image_size must be at least 16"
            )

    def wants_image(self, step: int) -> bool:
        """Whether the image term is due at this step."""
        return self.image > 0 and self.image_every > 0 and step % self.image_every == 0


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


def image_loss(
    predicted_NLD: Tensor,
    target_NLD: Tensor,
    generator: Generator,
    perceptual: Callable[[Tensor, Tensor], Tensor],
    size: int = 128,
) -> Tensor:
    """L_lpips = mean || phi(G(w^)) - phi(G(w)) ||, with perceptual(x, y) -> (N,) on images averaged down to `size`.

    The target is the inverted frame G(w), not the camera's: stage 1 is not asked for what G cannot make.
    """
    with torch.no_grad():
        target = resize(generator.synthesis(target_NLD), size)
    return perceptual(resize(generator.synthesis(predicted_NLD), size), target).mean()


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


class ImageTerm:
    """L_lpips on one frame, drawn at random from the batch: it costs a forward and backward pass of the generator.

    The networks' own weights get no gradient. perceptual(x, y) -> (N,) on images in [-1, 1].
    """

    def __init__(self, generator: Generator, perceptual: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.generator, self.perceptual = generator, perceptual
        for part in (generator, perceptual):
            if isinstance(part, nn.Module):
                part.eval().requires_grad_(False)

    def __call__(
        self,
        c_NTC: Tensor,
        d_NTLD: Tensor,
        w_ref_NLD: Tensor,
        mask_NT: Tensor,
        space: DisplacementSpace,
        size: int,
        rng: np.random.Generator,
    ) -> Tensor:
        n = int(rng.integers(len(c_NTC)))
        t = int(rng.integers(int(mask_NT[n].sum())))
        predicted_NLD = (w_ref_NLD[n] + space.decode(c_NTC[n, t]))[None]
        target_NLD = (w_ref_NLD[n] + d_NTLD[n, t])[None]
        return image_loss(predicted_NLD, target_NLD, self.generator, self.perceptual, size)
