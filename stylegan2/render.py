"""Latents -> frames, a chunk at a time: memory does not grow with the length of the video.

Shapes: T frames, L rows of W+, D latent width.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from stylegan2.images import to_uint8
from stylegan2.protocol import Generator

Rows = np.ndarray | Tensor


def render(
    generator: Generator,
    w: Rows | Iterable[Rows],
    chunk: int = 8,
    device: torch.device | str | None = None,
) -> Iterator[np.ndarray]:
    """Yields one uint8 frame (H, W, 3) for each latent, with constant noise.

    w: (T, L, D) array or tensor, or any iterable of (L, D) rows (read only as far as frames are taken, plus
    at most one chunk); float16 is computed in float32. The generator must be on `device` (default: where it is).
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    target = torch.device(device) if device is not None else generator.w_avg.device
    rows = iter(w)
    while batch := list(islice(rows, chunk)):
        # inference mode must not be open while a frame is yielded: it would leak into the consumer
        yield from _frames(generator, batch, target)


@torch.inference_mode()
def _frames(generator: Generator, batch: list[Rows], device: torch.device) -> np.ndarray:
    expected = (generator.num_rows, generator.w_dim)
    for row in batch:
        if tuple(row.shape) != expected:
            raise ValueError(
                f"the generator takes latents of shape {expected} (rows, width), got {tuple(row.shape)}"
            )
    w_NLD = torch.stack([torch.as_tensor(row).to(device, torch.float32) for row in batch])
    return to_uint8(generator.synthesis(w_NLD, noise="const"))
