"""The losses of pivotal tuning: reconstruction of the frames, and two regularisers towards the base generator.

Shapes: N images, L rows of W+, D latent width; images (N, 3, H, W) in about [-1, 1].
Equations: Roich et al. 2021 (PTI), sections 3.2 and 3.3; the displacement response is this project's own.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan2.images import resize
from stylegan2.protocol import Generator, repeat_rows

Distance = Callable[[Tensor, Tensor], Tensor]

MOUTH_BOX = (0.55, 0.30, 0.90, 0.70)  # top, left, bottom, right as shares of an FFHQ-aligned crop


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


def displacement_response(
    tuned: Generator,
    base: Generator,
    pivot_NLD: Tensor,
    displacement_NLD: Tensor,
    image: Tensor | None = None,
) -> Tensor:
    """|[G'(w + d) - G'(w)] - [G(w + d) - G(w)]|^2 around the mouth, per image (N,).

    A displacement must change the mouth in images of the tuned generator G' as it does in those of the base generator
    G, whatever the face looks like; this preserves lip sync. image: G'(w), if it has been computed already.
    """
    image = tuned.synthesis(pivot_NLD, noise="const") if image is None else image
    response = tuned.synthesis(pivot_NLD + displacement_NLD, noise="const") - image
    with torch.no_grad():
        displaced = base.synthesis(pivot_NLD + displacement_NLD, noise="const")
        base_response = displaced - base.synthesis(pivot_NLD, noise="const")
    return l2(_mouth(response), _mouth(base_response))


def _mouth(image: Tensor) -> Tensor:
    top, left, bottom, right = (round(share * image.shape[-1]) for share in MOUTH_BOX)
    return image[..., top:bottom, left:right]
