"""Frames -> W+ codes: by the encoder, by optimisation, or by the encoder followed by refinement.

Shapes: T frames, L rows, D = 512.

Refinement minimises over an offset s of the codes

    |G(w_0 + s) - x|^2 + d(G(w_0 + s), x) + mu |F(G(w_0 + s)) - F(x)| + lambda |s|^2

with w_0 the encoder's code, or w_avg, and F the mouth's landmarks; either for each frame on its own, so that a
chunk's size changes nothing, or for one offset that all frames of a person share. An encoder's error is nearly the
same in all frames of a person: one offset, found on a few of them, repairs who it is and leaves the motion as the
encoder saw it, without the jitter of independent optimisations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from encoders.geometry import MOUTH
from stylegan2.images import resize, to_tensor
from stylegan2.protocol import Generator, repeat_rows


@dataclass(frozen=True)
class Judges:
    """What refinement looks with: distance(x, y) -> [N] on images in [-1, 1], and a network from face to landmarks."""

    distance: Callable[[Tensor, Tensor], Tensor]
    landmarks: nn.Module | None = None


@dataclass
class InversionConfig:
    """steps = person_steps = 0 with start "encoder" is the paper's choice: the encoder's code as it is.

    start: "encoder", or "mean" (w_avg) to invert without an encoder.
    steps: of each frame on its own. person_steps: of the one offset of a person, found on person_frames frames of
    one clip, and before `steps`.
    size: px at which the perceptual term compares; landmark_weight: mu, per px of the 256 px crop; stay: lambda.
    """

    start: str = "encoder"
    steps: int = 0
    person_steps: int = 0
    person_frames: int = 3
    lr: float = 0.02
    pixel_weight: float = 1.0
    perceptual_weight: float = 1.0
    landmark_weight: float = 0.0
    stay: float = 0.02
    size: int = 128
    chunk: int = 8

    def __post_init__(self) -> None:
        if self.start not in ("encoder", "mean"):
            raise ValueError(f'start is "encoder" or "mean", got {self.start!r}')
        if min(self.steps, self.person_steps) < 0 or min(self.chunk, self.person_frames) < 1:
            raise ValueError("steps cannot be negative; chunk and person_frames are at least 1")


def refine(
    w_TLD: Tensor,
    images_T3HW: Tensor,
    generator: Generator,
    judges: Judges,
    config: InversionConfig,
    steps: int,
    shared: bool = False,
) -> Tensor:
    """The offset of the codes after `steps` of Adam: [T, L, D], or [1, L, D] if all frames share it.

    The learning rate falls to zero as a cosine.
    """
    shift = torch.zeros_like(w_TLD[:1] if shared else w_TLD, requires_grad=True)
    optimiser = torch.optim.Adam([shift], lr=config.lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    true, true_small = (resize(images_T3HW, size) for size in (generator.resolution, config.size))
    landmarks = judges.landmarks if config.landmark_weight else None
    points = None if landmarks is None else landmarks(images_T3HW)[:, MOUTH]
    for _ in range(steps):
        made = generator.synthesis(w_TLD + shift)
        pixel = (made - true).square().mean((1, 2, 3))
        perceptual = judges.distance(resize(made, config.size), true_small)
        loss = config.pixel_weight * pixel + config.perceptual_weight * perceptual
        if landmarks is not None:
            miss = (landmarks(made)[:, MOUTH] - points).norm(dim=2).mean(1)
            loss = loss + config.landmark_weight * miss
        loss = loss + config.stay * shift.square().mean((1, 2))
        optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimiser.step()
        schedule.step()
    return shift.detach()


def start_codes(
    images_N3HW: Tensor, encoder: nn.Module | None, generator: Generator, config: InversionConfig
) -> Tensor:
    """Where inversion starts, [N, L, D]: the encoder's codes, or w_avg in every row.

    Raises ValueError if the encoder is missing, or writes another number of rows than the generator reads.
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
    judges: Judges,
) -> Tensor:
    """What the codes of all frames of a person lack, [L, D]: found on a few of them, uint8 (K, H, W, 3)."""
    images = to_tensor(frames, generator.w_avg.device)
    w_KLD = start_codes(images, encoder, generator, config)
    return refine(w_KLD, images, generator, judges, config, config.person_steps, shared=True)[0]


def invert_frames(
    frames: Iterator[np.ndarray] | np.ndarray,
    encoder: nn.Module | None,
    generator: Generator,
    config: InversionConfig,
    judges: Judges | None = None,
    offset_LD: Tensor | None = None,
) -> Iterator[Tensor]:
    """Aligned uint8 frames (H, W, 3) -> float32 codes [n, L, D] per chunk, in order; constant memory.

    offset_LD: of the person (`person_offset`). Raises ValueError as `start_codes` does, and if there are steps to
    make and no judges.
    """
    if config.steps and judges is None:
        raise ValueError("refinement steps need a perceptual distance to judge by")
    device = generator.w_avg.device
    chunk: list[np.ndarray] = []

    def flush() -> Tensor:
        images = to_tensor(np.stack(chunk), device)
        w = start_codes(images, encoder, generator, config)
        if offset_LD is not None:
            w = w + offset_LD
        if config.steps and judges is not None:
            w = w + refine(w, images, generator, judges, config, config.steps)
        chunk.clear()
        return w.float().cpu()

    for frame in frames:
        chunk.append(frame)
        if len(chunk) == config.chunk:
            yield flush()
    if chunk:
        yield flush()
