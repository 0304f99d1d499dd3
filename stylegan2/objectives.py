"""The losses and the latent mixing with which a StyleGAN2 is trained.

Shapes: N images, L rows of W+, D latent width.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan2.protocol import NoiseMode


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating logistic: E[-log sigmoid(D(G(w)))]."""
    return F.softplus(-fake_logits.float()).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic: E[-log sigmoid(D(x))] + E[-log(1 - sigmoid(D(G(w))))]."""
    return F.softplus(-real_logits.float()).mean() + F.softplus(fake_logits.float()).mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """R1 = E[|grad_x D(x)|^2] on real images or latents [N, ...] (Mescheder 2018); its weight is gamma / 2."""
    real = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.float().square().flatten(1).sum(1).mean()


def default_r1_gamma(resolution: int, batch: int) -> float:
    """0.0002 resolution^2 / batch: R1 sums over pixels, so its weight has to follow their number."""
    return 0.0002 * resolution**2 / batch


def path_length_penalty(
    synthesis: Callable[[Tensor, NoiseMode], Tensor],
    w_NLD: Tensor,
    mean: Tensor,
    decay: float = 0.01,
    noise: NoiseMode = "random",
) -> tuple[Tensor, Tensor]:
    """E[(|J_w^T y|_2 - a)^2], y normal noise / sqrt(H W), a its running mean (StyleGAN2, section 3.2).

    Returns the penalty and the new a. The norm is over D, with the mean of squares over rows.
    """
    w = w_NLD if w_NLD.requires_grad else w_NLD.detach().requires_grad_(True)
    image = synthesis(w, noise).float()
    y = torch.randn_like(image) / math.sqrt(image.shape[2] * image.shape[3])
    (gradient,) = torch.autograd.grad((image * y).sum(), w, create_graph=True)
    length = gradient.float().square().sum(2).mean(1).sqrt()
    mean = mean.lerp(length.detach().mean(), decay)
    return (length - mean).square().mean(), mean


def mix_styles(w_ND: Tensor, other_ND: Tensor, num_rows: int, probability: float) -> Tensor:
    """(N, L, D): rows of w, and with `probability` rows of the other from a random row 1 ... L-1 on."""
    n, device = len(w_ND), w_ND.device
    first = torch.randint(1, num_rows, (n,), device=device)
    first = torch.where(torch.rand(n, device=device) < probability, first, num_rows)
    later = torch.arange(num_rows, device=device)[None, :] >= first[:, None]
    return torch.where(later[:, :, None], other_ND[:, None], w_ND[:, None])
