"""Latents -> frames, a chunk at a time: memory does not grow with the length of the video.

Shapes: T frames, L rows of W+, D latent width.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan2.images import to_uint8
from stylegan2.protocol import Generator, Start

Rows = np.ndarray | Tensor


def render(
    generator: Generator,
    w: Rows | Iterable[Rows],
    chunk: int | None = None,
    device: torch.device | str | None = None,
) -> Iterator[np.ndarray]:
    """Yields one uint8 frame (H, W, 3) for each latent, with constant noise.

    w: (T, L, D) array or tensor, or any iterable of (L, D) rows (read only as far as frames are taken, plus
    at most one chunk); float16 is computed in float32. The generator must be on `device` (default: where it is).
    chunk: frames that are computed at once (None: 1 on a CPU, else 8); memory grows with it.
    What the leading rows make is computed once, as long as all frames have them in common.
    """
    target = torch.device(device) if device is not None else generator.w_avg.device
    if chunk is None:
        # A CPU's cache holds the features of one frame: the embedded generator takes 0.31 s, for two 0.38 s each.
        chunk = 1 if target.type == "cpu" else 8
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    rows, beginning = iter(w), _Beginning(generator)
    while batch := list(islice(rows, chunk)):
        # inference mode must not be open while a frame is yielded: it would leak into the consumer
        yield from _frames(generator, batch, target, beginning)


class _Beginning:
    """The leading rows that every frame so far shares with the first one, and what the generator makes of them."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator
        self.first_LD: Tensor | None = None
        self.rows = 0
        self.start: Start | None = None

    def of(self, w_NLD: Tensor) -> dict[str, Start]:
        """The keyword argument of synthesis that spares it the common rows; none if there is nothing to spare."""
        if not hasattr(self.generator, "start"):
            return {}
        if self.first_LD is None:
            self.first_LD, self.rows = w_NLD[0].clone(), w_NLD.shape[1] + 1
        same_L = (w_NLD == self.first_LD).flatten(2).all(2).all(0)
        rows = int(same_L.int().cumprod(0).sum())
        if rows < self.rows:
            self.rows, self.start = rows, self.generator.start(self.first_LD, rows)
        return {"start": self.start} if self.start is not None else {}


@torch.inference_mode()
def _frames(
    generator: Generator, batch: list[Rows], device: torch.device, beginning: _Beginning
) -> np.ndarray:
    expected = (generator.num_rows, generator.w_dim)
    for row in batch:
        if tuple(row.shape) != expected:
            raise ValueError(
                f"the generator takes latents of shape {expected} (rows, width), got {tuple(row.shape)}"
            )
    w_NLD = torch.stack([torch.as_tensor(row).to(device, torch.float32) for row in batch])
    return to_uint8(generator.synthesis(w_NLD, noise="const", **beginning.of(w_NLD)))
