"""Frames -> W+ codes: by the encoder, by optimisation, or by the encoder followed by refinement.

Shapes: T frames, K frames of one person, L rows, D = 512.

Refinement minimises over an offset s of each frame's code

    |G(w_0 + s) - x|^2 + d(G(w_0 + s), x) + lambda |s|^2

where w_0 is the encoder's code or w_avg, and d a perceptual distance. Losses of different frames do not mix, so the chunk
size does not change the result. An offset that all frames of a person share is fitted by encoders/person_offset.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from encoders.person_offset import PersonConfig
from stylegan2.images import resize, to_tensor
from stylegan2.protocol import Generator, repeat_rows

Distance = Callable[[Tensor, Tensor], Tensor]  # images in [-1, 1] -> [N]


@dataclass
class InversionConfig:
    """How frames are inverted. The defaults are the paper's choice: the encoder's code without refinement."""

    # Initial code. "encoder": that of the encoder; "mean": w_avg, to invert by optimisation alone.
    start: Literal["encoder", "mean"] = "encoder"
    steps: int = 0  # refinement steps on each frame separately
    person: PersonConfig = field(default_factory=PersonConfig)  # the offset that all codes of a person share
    lr: float = 0.02  # initial learning rate of Adam; it falls to zero along a cosine
    pixel_weight: float = 1.0  # weight of the mean squared error, images in [-1, 1]
    perceptual_weight: float = 1.0  # weight of d
    stay: float = 0.02  # lambda, weight of |s|^2
    size: int = 128  # px at which d compares images; small, because d takes most of a step's time
    chunk: int = 8  # frames in one batch; limits memory

    def __post_init__(self) -> None:
        if self.steps < 0 or self.chunk < 1 or self.size < 16:
            raise ValueError(
                "encoder.inversion: steps cannot be negative, chunk is at least 1, size at least 16"
            )


def refine(
    w_TLD: Tensor,
    images_T3HW: Tensor,
    generator: Generator,
    distance: Distance,
    config: InversionConfig,
    steps: int,
) -> Tensor:
    """The offset of each code after `steps` of Adam, [T, L, D]."""
    offset = torch.zeros_like(w_TLD, requires_grad=True)
    optimiser = torch.optim.Adam([offset], lr=config.lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    target, small_target = (resize(images_T3HW, size) for size in (generator.resolution, config.size))
    for _ in range(steps):
        # Loss of each frame
        image = generator.synthesis(w_TLD + offset)
        pixel = (image - target).square().mean((1, 2, 3))
        perceptual = distance(resize(image, config.size), small_target)
        loss = config.pixel_weight * pixel + config.perceptual_weight * perceptual
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


def invert_frames(
    frames: Iterator[np.ndarray] | np.ndarray,
    encoder: nn.Module | None,
    generator: Generator,
    config: InversionConfig,
    distance: Distance | None = None,
    offset_LD: Tensor | None = None,
) -> Iterator[Tensor]:
    """Aligned uint8 frames (H, W, 3) -> float32 codes [n, L, D] per chunk, in order; constant memory.

    offset_LD: of the person (`person_offset`). Raises ValueError as `start_codes` does, and if config.steps is
    positive without a distance.
    """
    if config.steps and distance is None:
        raise ValueError("refinement steps need a perceptual distance")

    def invert(chunk: list[np.ndarray]) -> Tensor:
        images = to_tensor(np.stack(chunk), generator.w_avg.device)
        w = start_codes(images, encoder, generator, config)
        if offset_LD is not None:
            w = w + offset_LD
        if config.steps and distance is not None:
            w = w + refine(w, images, generator, distance, config, config.steps)
        return w.float().cpu()

    remaining = iter(frames)
    while chunk := list(islice(remaining, config.chunk)):
        yield invert(chunk)
