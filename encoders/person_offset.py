"""The offset s that all codes of a person share: G(w_k + s) shows the person in frame k, where w_k is the encoder's code.

An encoder's error is nearly the same in all frames of a person. A shared offset, fitted to a few of them, corrects the
identity, keeps the motion that the encoder measured and adds no jitter between frames. The rows that move the lips stay the
encoder's: if they are fitted too, the lips of a person whose photo shows them closed hardly open any more.

Shapes: K frames, L rows, D = 512, R px.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.likeness import VIEWS, Likeness, LikenessNetworks, LikenessWeights
from stylegan2.images import resize
from stylegan2.protocol import Generator

# Rows of W+ that move the lips. With rows 3 and 8 fitted too, a real person's mouth stayed nearly closed (docs/RESULTS.md).
LIP_ROWS = slice(3, 9)


@dataclass
class PersonConfig:
    """How a person's offset is fitted; set on one real speaker (GRID s1)."""

    steps: int = (
        0  # of Adam, each on one frame; 0: no offset, the codes stay the encoder's (the paper's choice)
    )
    frames: int = 16  # frames of one clip, or photos, to which it is fitted
    lr: float = 0.04  # initial learning rate; it falls to zero along a cosine
    stay: float = 0.2  # weight of the mean of s^2
    size: int = 128  # px at which the perceptual distance compares images
    seed: int = 0  # of the order of frames

    def __post_init__(self) -> None:
        if self.steps < 0 or self.frames < 1 or self.size < 16:
            raise ValueError(
                "encoder.inversion.person: steps cannot be negative, frames are at least 1, size at least 16"
            )


def person_offset(
    images_K3HW: Tensor,
    landmarks: Tensor,
    codes_KLD: Tensor,
    generator: Generator,
    networks: LikenessNetworks,
    config: PersonConfig,
) -> Tensor:
    """The offset s, [L, D], fitted to aligned images in [-1, 1] with their landmarks [K, 68, 2] and codes."""
    images_K3RR = resize(images_K3HW, generator.resolution)
    loss_of = Likeness(images_K3RR, landmarks, networks, LikenessWeights(), config.size)
    offset = torch.zeros_like(codes_KLD[:1], requires_grad=True)
    fitted = torch.ones_like(offset)
    fitted[:, LIP_ROWS] = 0
    optimiser = torch.optim.Adam([offset], lr=config.lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(config.steps, 1))
    random, order = torch.Generator().manual_seed(config.seed), torch.empty(0)
    for i in range(config.steps):
        place = i % len(codes_KLD)
        if place == 0:
            order = torch.randperm(len(codes_KLD), generator=random)
        index = order[place][None]
        image = generator.synthesis(codes_KLD[index] + fitted * offset)
        terms = loss_of.terms(image, index, VIEWS[i % len(VIEWS)])
        loss = torch.stack(list(terms.values())).sum() + config.stay * offset.square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return offset.detach()[0]
