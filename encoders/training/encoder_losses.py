"""The image terms of encoder training: pixels, perceptual distance, landmarks and identity of G(E(x)) against x.

Shapes: N images, L rows, D = 512; images in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encoders.features.landmark_net import LandmarkNet
from encoders.geometry import MOUTH
from encoders.networks.ir_se import IdentityNet
from encoders.training.encoder_config import EncoderTrainConfig
from encoders.training.encoder_data import EncoderBatch
from stylegan2.images import resize
from stylegan2.protocol import Generator


@dataclass(frozen=True)
class ImageLosses:
    """The frozen networks of the image terms, compared at config.image_size px; a term whose network is None is off."""

    generator: Generator
    perceptual: Callable[[Tensor, Tensor], Tensor]
    landmarks: LandmarkNet | None = None
    identity: IdentityNet | None = None

    def __call__(self, w_NLD: Tensor, images_N3HW: Tensor, config: EncoderTrainConfig) -> dict[str, Tensor]:
        """The weighted terms of the loss."""
        image = resize(self.generator.synthesis(w_NLD), config.image_size)
        target = resize(images_N3HW, config.image_size)
        terms = {}
        if self.landmarks is not None:
            points = (self.landmarks(image) - self.landmarks(target)).norm(dim=2)
            terms["landmarks"] = config.landmark_weight * (points.mean() + 2 * points[:, MOUTH].mean())
        error = image - target
        pixel = error.abs() if config.pixel == "l1" else error.square()
        terms["pixel"] = config.pixel_weight * pixel.mean()
        terms["perceptual"] = config.perceptual_weight * self.perceptual(image, target).mean()
        if self.identity is not None:
            cosine = (self.identity(image) * self.identity(target)).sum(1)  # both have length 1
            terms["identity"] = config.identity_weight * (1 - cosine).mean()
        return terms

    @torch.no_grad()
    def sample_w(self, n: int, random: torch.Generator) -> Tensor:
        """Untruncated w [n, D] from the mapping network: the latent discriminator's real samples."""
        z_dim = getattr(self.generator, "z_dim", self.generator.w_dim)
        z = torch.randn(n, z_dim, generator=random, device="cpu")
        return self.generator.mapping(z.to(self.generator.w_avg.device))


@torch.inference_mode()
def mean_image_losses(
    encoder: nn.Module, losses: ImageLosses, batches: Iterable[EncoderBatch], config: EncoderTrainConfig
) -> dict[str, float]:
    """The image terms of the loss, averaged over validation batches."""
    terms = [losses(encoder(batch.images), batch.images, config) for batch in batches]
    return {name: torch.stack([term[name] for term in terms]).mean().item() for name in terms[0]}
