"""Frames -> W+ codes: by the encoder, by optimisation, or by the encoder followed by N refinement steps.

Shapes: T frames, L rows, D = 512.

Refinement minimises, for each frame on its own,

    |G(w) - x|^2 + d(G(w), x) + lambda |w - w_0|^2        w_0 the encoder's code, or w_avg

so that all frames of a clip are treated alike and a chunk's size changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stylegan2.images import resize, to_tensor
from stylegan2.protocol import Generator, repeat_rows

Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass
class InversionConfig:
    """steps = 0 with start "encoder" is the paper's choice: the encoder's code as it is.

    start: "encoder", or "mean" (w_avg) to invert without an encoder.
    size: px at which the perceptual term compares; stay: weight lambda of staying near the start.
    """

    start: str = "encoder"
    steps: int = 0
    lr: float = 0.02
    pixel_weight: float = 1.0
    perceptual_weight: float = 1.0
    stay: float = 0.02
    size: int = 128
    chunk: int = 8

    def __post_init__(self) -> None:
        if self.start not in ("encoder", "mean"):
            raise ValueError(f'start is "encoder" or "mean", got {self.start!r}')
        if self.steps < 0 or self.chunk < 1:
            raise ValueError("steps must be at least 0 and chunk at least 1")


def refine(
    w_TLD: Tensor, images_T3HW: Tensor, generator: Generator, distance: Distance, config: InversionConfig
) -> Tensor:
    """`config.steps` of Adam on the codes of independent frames; the learning rate falls to zero as a cosine."""
    start = w_TLD.detach()
    w = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([w], lr=config.lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(config.steps, 1))
    true = resize(images_T3HW, config.size)
    for _ in range(config.steps):
        image = generator.synthesis(w)
        made = resize(image, generator.resolution)
        pixel = (made - resize(images_T3HW, generator.resolution)).square().mean((1, 2, 3))
        perceptual = distance(resize(image, config.size), true)
        stay = (w - start).square().mean((1, 2))
        loss = config.pixel_weight * pixel + config.perceptual_weight * perceptual + config.stay * stay
        optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimiser.step()
        schedule.step()
    return w.detach()


def invert_frames(
    frames: Iterator[np.ndarray] | np.ndarray,
    encoder: nn.Module | None,
    generator: Generator,
    config: InversionConfig,
    distance: Distance | None = None,
) -> Iterator[Tensor]:
    """Aligned uint8 frames (H, W, 3) -> float32 codes [n, L, D] per chunk, in order; constant memory.

    Raises ValueError if the configuration needs an encoder or a perceptual distance that was not given, or if
    the encoder writes another number of rows than the generator reads.
    """
    if config.start == "encoder" and encoder is None:
        raise ValueError("inversion starts from an encoder: give one, or set encoder.inversion.start=mean")
    if config.steps and distance is None:
        raise ValueError("refinement steps need a perceptual distance")
    device = generator.w_avg.device
    chunk: list[np.ndarray] = []

    def flush() -> Tensor:
        images = to_tensor(np.stack(chunk), device)
        if config.start == "encoder" and encoder is not None:
            with torch.no_grad():
                w = encoder(images)
            if w.shape[1] != generator.num_rows:
                raise ValueError(
                    f"the encoder writes {w.shape[1]} rows and the generator reads {generator.num_rows}: "
                    "choose an encoder trained for this resolution"
                )
        else:
            w = repeat_rows(generator.w_avg[None], generator.num_rows).expand(len(chunk), -1, -1)
        if config.steps and distance is not None:
            w = refine(w, images, generator, distance, config)
        chunk.clear()
        return w.float().cpu()

    for frame in frames:
        chunk.append(frame)
        if len(chunk) == config.chunk:
            yield flush()
    if chunk:
        yield flush()
