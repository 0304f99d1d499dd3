"""Frames -> W+ codes: by the encoder, by optimisation, or by the encoder followed by refinement.

Shapes: T frames, K frames of one person, L rows, D = 512.

Refinement minimises over an offset s of the codes

    |G(w_0 + s) - x|^2 + d(G(w_0 + s), x) + mu |F(G(w_0 + s)) - F(x)| + lambda |s|^2

where w_0 is the encoder's code or w_avg, d a perceptual distance and F the landmarks of the mouth. The offset is either
one for each frame (losses of different frames do not mix, so the chunk size does not change the result) or one that all
frames of a person share. An encoder's error is nearly the same in all frames of a person, so a shared offset, fitted to
a few of them, corrects the identity, keeps the motion that the encoder measured and adds no jitter between frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from encoders.geometry import MOUTH
from stylegan2.images import resize, to_tensor
from stylegan2.protocol import Generator, repeat_rows


@dataclass(frozen=True)
class InversionLosses:
    """The networks in refinement's loss: distance(x, y) -> [N] on images in [-1, 1], and face -> 68 landmarks (None: off)."""

    distance: Callable[[Tensor, Tensor], Tensor]
    landmarks: nn.Module | None = None


@dataclass
class InversionConfig:
    """How frames are inverted. The defaults are the paper's choice: the encoder's code without refinement."""

    # Initial code. "encoder": that of the encoder; "mean": w_avg, to invert by optimisation alone.
    start: Literal["encoder", "mean"] = "encoder"
    steps: int = 0  # refinement steps on each frame separately
    person_steps: int = 0  # steps on the offset that all codes of a person share, before `steps`
    person_frames: int = 3  # frames of one clip to which this offset is fitted
    lr: float = 0.02  # initial learning rate of Adam; it falls to zero along a cosine
    pixel_weight: float = 1.0  # weight of the mean squared error, images in [-1, 1]
    perceptual_weight: float = 1.0  # weight of d
    landmark_weight: float = 0.0  # mu, weight per px of the 256 px crop
    stay: float = 0.02  # lambda, weight of |s|^2
    size: int = 128  # px at which d compares images; small, because d takes most of a step's time
    chunk: int = 8  # frames in one batch; limits memory

    def __post_init__(self) -> None:
        if min(self.steps, self.person_steps) < 0 or min(self.chunk, self.person_frames) < 1:
            raise ValueError("steps cannot be negative; chunk and person_frames are at least 1")


def refine(
    w_TLD: Tensor,
    images_T3HW: Tensor,
    generator: Generator,
    losses: InversionLosses,
    config: InversionConfig,
    steps: int,
    shared: bool = False,
) -> Tensor:
    """The offset of the codes after `steps` of Adam: [T, L, D], or [1, L, D] if all frames share it."""
    offset = torch.zeros_like(w_TLD[:1] if shared else w_TLD, requires_grad=True)
    optimiser = torch.optim.Adam([offset], lr=config.lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    target, small_target = (resize(images_T3HW, size) for size in (generator.resolution, config.size))
    landmarks = losses.landmarks if config.landmark_weight else None
    target_points = None if landmarks is None else landmarks(images_T3HW)[:, MOUTH]
    for _ in range(steps):
        # Loss of each frame
        image = generator.synthesis(w_TLD + offset)
        pixel = (image - target).square().mean((1, 2, 3))
        perceptual = losses.distance(resize(image, config.size), small_target)
        loss = config.pixel_weight * pixel + config.perceptual_weight * perceptual
        if landmarks is not None:
            error = (landmarks(image)[:, MOUTH] - target_points).norm(dim=2).mean(1)
            loss = loss + config.landmark_weight * error
        loss = loss + config.stay * offset.square().mean((1, 2))
        # Update
        optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimiser.step()
        schedule.step()
    return offset.detach()


def start_codes(
    images_N3HW: Tensor, encoder: nn.Module | None, generator: Generator, config: InversionConfig
) -> Tensor:
    """The codes that inversion starts from, [N, L, D]: the encoder's, or w_avg in every row.

    Raises ValueError if the encoder is missing or its number of rows differs from the generator's.
    """
    if config.start == "mean":
        return repeat_rows(generator.w_avg[None], generator.num_rows).expand(len(images_N3HW), -1, -1)
    if encoder is None:
        raise ValueError("inversion starts from an encoder: give one, or set encoder.inversion.start=mean")
    with torch.no_grad():
        w_NLD = encoder(images_N3HW)
    if w_NLD.shape[1] != generator.num_rows:
        raise ValueError(
            f"the encoder writes {w_NLD.shape[1]} rows and the generator reads {generator.num_rows}: "
            "choose an encoder trained for this resolution"
        )
    return w_NLD


def person_offset(
    frames: np.ndarray,
    encoder: nn.Module | None,
    generator: Generator,
    config: InversionConfig,
    losses: InversionLosses,
) -> Tensor:
    """The correction [L, D] of all codes of a person, fitted to a few of their frames, uint8 (K, H, W, 3)."""
    images = to_tensor(frames, generator.w_avg.device)
    w_KLD = start_codes(images, encoder, generator, config)
    return refine(w_KLD, images, generator, losses, config, config.person_steps, shared=True)[0]


def invert_frames(
    frames: Iterator[np.ndarray] | np.ndarray,
    encoder: nn.Module | None,
    generator: Generator,
    config: InversionConfig,
    losses: InversionLosses | None = None,
    offset_LD: Tensor | None = None,
) -> Iterator[Tensor]:
    """Aligned uint8 frames (H, W, 3) -> float32 codes [n, L, D] per chunk, in order; constant memory.

    offset_LD: of the person (`person_offset`). Raises ValueError as `start_codes` does, and if config.steps is
    positive without losses.
    """
    if config.steps and losses is None:
        raise ValueError("refinement steps need the networks of their loss (InversionLosses)")

    def invert(chunk: list[np.ndarray]) -> Tensor:
        images = to_tensor(np.stack(chunk), generator.w_avg.device)
        w = start_codes(images, encoder, generator, config)
        if offset_LD is not None:
            w = w + offset_LD
        if config.steps and losses is not None:
            w = w + refine(w, images, generator, losses, config, config.steps)
        return w.float().cpu()

    remaining = iter(frames)
    while chunk := list(islice(remaining, config.chunk)):
        yield invert(chunk)
