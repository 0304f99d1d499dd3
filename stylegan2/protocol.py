"""The interface of every face generator, and the operations on its latent space.

Shapes: N images, L rows of W+, D latent width, H = W = resolution.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

NoiseMode = Literal["const", "random", "none"]


@runtime_checkable
class Generator(Protocol):
    """A pre-trained generator with a W+ latent space; implementations are `nn.Module`s.

    num_rows L is 2 log2(resolution) - 2 for a StyleGAN2 (256 px: 14); w_avg (D,) is the mean of W.
    """

    @property
    def num_rows(self) -> int: ...

    @property
    def w_dim(self) -> int: ...

    @property
    def resolution(self) -> int: ...

    @property
    def w_avg(self) -> Tensor: ...

    def mapping(self, z: Tensor, /) -> Tensor:
        """z (N, Z) standard normal -> w (N, D)."""
        ...

    def synthesis(self, w: Tensor, /, noise: NoiseMode = "const") -> Tensor:
        """w (N, L, D) -> image (N, 3, H, W) in about [-1, 1], not clamped.

        noise: "const" (that of the weights, the same in every frame of a video), "random" (new) or "none".
        """
        ...


@dataclass(frozen=True)
class Start:
    """The state of a synthesis after its first `blocks` blocks, for one latent: features and RGB image (1, ...)."""

    blocks: int
    features: Tensor | None
    image: Tensor | None = None

    def repeated(self, n: int) -> tuple[Tensor | None, Tensor | None]:
        """Features and image for n latents."""
        features, image = (
            None if x is None else x.expand(n, -1, -1, -1) for x in (self.features, self.image)
        )
        return features, image


def truncate(w: Tensor, w_avg: Tensor, psi: float) -> Tensor:
    """w' = w_avg + psi (w - w_avg): psi 1 leaves w, psi 0 gives the mean face, psi > 1 exaggerates."""
    return w_avg + psi * (w - w_avg)


def repeat_rows(w_ND: Tensor, num_rows: int) -> Tensor:
    """W -> W+: the same w (N, D) for every row, (N, L, D)."""
    return w_ND[:, None, :].expand(-1, num_rows, -1).contiguous()


@torch.no_grad()
def sample_w(generator: Generator, n: int, seed: int, psi: float = 1.0) -> Tensor:
    """n truncated latents (n, L, D) from a seed, on the generator's device.

    z is drawn by numpy, row after row: the first k of n samples depend neither on n nor on the device.
    """
    z_dim = getattr(generator, "z_dim", generator.w_dim)
    z = np.random.Generator(np.random.PCG64(seed)).standard_normal((n, z_dim), dtype=np.float32)
    w_ND = generator.mapping(torch.from_numpy(z).to(generator.w_avg.device))
    return repeat_rows(truncate(w_ND, generator.w_avg, psi), generator.num_rows)
