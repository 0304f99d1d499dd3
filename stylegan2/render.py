"""Renders latents to frames in chunks, so that memory does not grow with the length of the video.

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

    w: (T, L, D) array or tensor, or any iterable of (L, D) latents, read at most one chunk ahead; float16 is computed
    in float32.
    chunk: frames computed at once (None: 1 on a CPU, else 8); memory grows with it.
    device: where the generator is (None: the device of its w_avg).
    Blocks whose rows are the same in all frames so far are computed once.
    """
    target = torch.device(device) if device is not None else generator.w_avg.device
    if chunk is None:
        # On a CPU single frames are faster: 0.31 s with the embedded generator against 0.38 s each in chunks of two,
        # because the features of one frame fit into the cache.
        chunk = 1 if target.type == "cpu" else 8
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    latents, shared = iter(w), _SharedRows(generator)
    while batch := list(islice(latents, chunk)):
        # inference mode ends before each yield; otherwise it would also be active in the caller
        yield from _frames(generator, batch, target, shared)


class _SharedRows:
    """The leading rows that are the same in all frames so far, and the result of the blocks that read only these
    rows.
    """

    def __init__(self, generator: Any) -> None:
        self.generator = generator
        self.first_LD: Tensor | None = None
        self.rows = 0
        self.start: Start | None = None

    def start_of(self, w_NLD: Tensor) -> dict[str, Start]:
        """The keyword argument `start` of synthesis for these latents; empty if no block can be skipped."""
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
def _frames(generator: Generator, batch: list[Rows], device: torch.device, shared: _SharedRows) -> np.ndarray:
    expected = (generator.num_rows, generator.w_dim)
    for latent in batch:
        if tuple(latent.shape) != expected:
            raise ValueError(
                f"the generator takes latents of shape {expected} (rows, width), got {tuple(latent.shape)}"
            )
    w_NLD = torch.stack([torch.as_tensor(latent).to(device, torch.float32) for latent in batch])
    return to_uint8(generator.synthesis(w_NLD, noise="const", **shared.start_of(w_NLD)))
