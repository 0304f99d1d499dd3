"""What looks at G(E(x)) while an encoder is trained: pixels, a perceptual distance, landmarks, identity.

Shapes: N images, L rows, D = 512; images in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from encoders.features.landmark_net import LandmarkNet
from encoders.geometry import MOUTH
from encoders.networks.ir_se import IdentityNet
from encoders.training.encoder_data import Batch
from stylegan2.images import resize
from stylegan2.protocol import Generator

if TYPE_CHECKING:
    from encoders.training.encoder_trainer import EncoderTrainConfig


@dataclass(frozen=True)
class ImageJudges:
    """Frozen networks that compare at config.image_size px; what is None is not looked at."""

    generator: Generator
    perceptual: Callable[[Tensor, Tensor], Tensor]
    landmarks: LandmarkNet | None = None
    identity: IdentityNet | None = None

    def __call__(self, w_NLD: Tensor, true_N3HW: Tensor, config: EncoderTrainConfig) -> dict[str, Tensor]:
        """The weighted terms of the loss."""
        made = resize(self.generator.synthesis(w_NLD), config.image_size)
        true = resize(true_N3HW, config.image_size)
        terms = {}
        if self.landmarks is not None:
            points = (self.landmarks(made) - self.landmarks(true)).norm(dim=2)
            terms["landmarks"] = config.landmark_weight * (points.mean() + 2 * points[:, MOUTH].mean())
        error = made - true
        pixel = error.abs() if config.pixel == "l1" else error.square()
        terms["pixel"] = config.pixel_weight * pixel.mean()
        terms["perceptual"] = config.perceptual_weight * self.perceptual(made, true).mean()
        if self.identity is not None:
            alike = (self.identity(made) * self.identity(true)).sum(1)  # cosine: both have length 1
            terms["identity"] = config.identity_weight * (1 - alike).mean()
        return terms

    @torch.no_grad()
    def sample_w(self, n: int, random: torch.Generator) -> Tensor:
        """w [n, D] of the mapping network, not truncated: what the latent discriminator takes for real."""
        z_dim = getattr(self.generator, "z_dim", self.generator.w_dim)
        z = torch.randn(n, z_dim, generator=random, device="cpu")
        return self.generator.mapping(z.to(self.generator.w_avg.device))


@torch.inference_mode()
def fidelity(
    encoder: nn.Module, judges: ImageJudges, batches: Iterable[Batch], config: EncoderTrainConfig
) -> dict[str, float]:
    """The image terms of the loss, averaged over batches of images that were not trained on."""
    found = [judges(encoder(batch.images), batch.images, config) for batch in batches]
    return {name: torch.stack([terms[name] for terms in found]).mean().item() for name in found[0]}
