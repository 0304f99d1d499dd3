"""The losses of pivotal tuning (PTI): reconstruction of the frames, and a regulariser towards the base generator.

Shapes: N images, L rows of W+, D latent width; images (N, 3, H, W) in about [-1, 1].
Equations: Roich et al. 2021 (PTI), sections 3.2 and 3.3.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan2.images import resize
from stylegan2.protocol import Generator, repeat_rows

Distance = Callable[[Tensor, Tensor], Tensor]


def l2(image: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per image, (N,)."""
    return (image - target).square().flatten(1).mean(dim=1)


def perceptual_at(perceptual: Distance, image: Tensor, target: Tensor, size: int | None) -> Tensor:
    """Perceptual distance (N,) of the images averaged down to size px (None: not resized); never enlarges them."""
    size = min(size or image.shape[-1], image.shape[-1])
    return perceptual(resize(image, size), resize(target, size))


def nearby(generator: Generator, pivot_NLD: Tensor, alpha: float, random: torch.Generator) -> Tensor:
    """w_r = w_p + alpha (w - w_p) / |w - w_p|: a latent at distance alpha from each pivot, towards a sample of W."""
    z_dim = getattr(generator, "z_dim", generator.w_dim)
    z = torch.randn(len(pivot_NLD), z_dim, generator=random).to(pivot_NLD)
    with torch.no_grad():
        w_NLD = repeat_rows(generator.mapping(z), generator.num_rows)
    direction = F.normalize((w_NLD - pivot_NLD).flatten(1), dim=1).view_as(pivot_NLD)
    return pivot_NLD + alpha * direction


def locality(
    tuned: Generator,
    base: Generator,
    pivot_NLD: Tensor,
    perceptual: Distance,
    alpha: float,
    size: int | None,
    random: torch.Generator,
) -> Tensor:
    """L2 + perceptual distance (N,) between both generators' images of w_r, near the pivots (PTI, section 3.3)."""
    w_NLD = nearby(base, pivot_NLD, alpha, random)
    with torch.no_grad():
        target = base.synthesis(w_NLD, noise="const")
    image = tuned.synthesis(w_NLD, noise="const")
    return l2(image, target) + perceptual_at(perceptual, image, target, size)
