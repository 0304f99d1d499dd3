"""e4e's latent discriminator, whose loss moves the rows of a code towards the distribution of W (Tov et al. 2021,
section 5.3).

    L_D = E[softplus(-D(w))] + E[softplus(D(e))] + R1      w = mapping(z), e a row of an encoded image
    L_E = E[softplus(-D(e))]                               over all rows that have a delta of their own

Shapes: N codes, L rows, D latent width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating logistic loss E[-log sigmoid(D(e))] of logits [N, 1]."""
    return F.softplus(-fake_logits.float()).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic loss E[-log sigmoid(D(w))] + E[-log(1 - sigmoid(D(e)))] of logits [N, 1]."""
    return F.softplus(-real_logits.float()).mean() + F.softplus(fake_logits.float()).mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real_ND: Tensor) -> Tensor:
    """R1 = E[|grad_w D(w)|^2] on real latents (Mescheder et al. 2018); its weight in the loss is gamma / 2."""
    real = real_ND.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.float().square().flatten(1).sum(1).mean()


@dataclass
class AdversaryConfig:
    """The latent discriminator and its training; the values are e4e's, except that it is off."""

    weight: float = 0.0  # weight of L_E in the encoder's loss; 0 is off, e4e uses 0.1
    layers: int = 4  # fully connected layers
    lr: float = 2e-5  # learning rate of Adam
    r1_gamma: float = 10.0  # R1 has the weight r1_gamma / 2
    r1_every: int = 16  # steps from one R1 penalty to the next (lazy regularisation)
    pool: int = 50  # rows of earlier steps kept in LatentPool

    def __post_init__(self) -> None:
        counts, weights = (self.layers, self.r1_every, self.pool), (self.weight, self.r1_gamma)
        if min(counts) < 1 or min(weights) < 0 or self.lr <= 0:
            raise ValueError(
                "layers, r1_every and pool must be at least 1, lr positive, weight and r1_gamma not negative"
            )


def latent_discriminator(w_dim: int, layers: int = 4) -> nn.Sequential:
    """w [N, D] -> score [N, 1]: fully connected layers of width D with LeakyReLU 0.2 between them."""
    hidden = [part for _ in range(layers - 1) for part in (nn.Linear(w_dim, w_dim), nn.LeakyReLU(0.2))]
    return nn.Sequential(*hidden, nn.Linear(w_dim, 1))


class LatentPool:
    """Rows of earlier steps, so that the discriminator does not overfit to the encoder's last step."""

    def __init__(self, size: int):
        self.size = size
        self.rows: list[Tensor] = []

    def mix(self, w_ND: Tensor, random: torch.Generator) -> Tensor:
        """The rows [N, D], about half of them replaced by stored ones once the pool is full."""
        mixed = []
        for w in w_ND.detach():
            if len(self.rows) < self.size:
                self.rows.append(w)
            elif torch.rand(1, generator=random, device="cpu").item() < 0.5:
                i = int(torch.randint(self.size, (1,), generator=random, device="cpu").item())
                w, self.rows[i] = self.rows[i], w
            mixed.append(w)
        return torch.stack(mixed)


class Adversary:
    """The discriminator, its optimiser and its pool; a checkpoint holds their states."""

    def __init__(self, w_dim: int, config: AdversaryConfig, device: torch.device | str = "cpu"):
        self.config = config
        self.network = latent_discriminator(w_dim, config.layers).to(device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=config.lr)
        self.pool = LatentPool(config.pool)

    def encoder_loss(self, w_NLD: Tensor) -> Tensor:
        """L_E of these rows; only the codes get gradients."""
        self.network.requires_grad_(False)
        return generator_loss(self.network(w_NLD.flatten(0, 1)))

    def train_step(
        self, real_ND: Tensor, fake_NLD: Tensor, step: int, random: torch.Generator
    ) -> dict[str, Tensor]:
        """One step on samples of W against one random row of each code; returns the losses."""
        self.network.requires_grad_(True)
        n, rows = fake_NLD.shape[:2]
        row = torch.randint(rows, (n,), generator=random, device="cpu").to(fake_NLD.device)
        fake_ND = self.pool.mix(fake_NLD.detach()[torch.arange(n, device=row.device), row], random)
        terms = {"discriminator": discriminator_loss(self.network(real_ND), self.network(fake_ND))}
        loss = terms["discriminator"]
        if step % self.config.r1_every == 0:
            terms["r1"] = r1_penalty(self.network, real_ND)
            loss = loss + self.config.r1_gamma / 2 * self.config.r1_every * terms["r1"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return terms

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "pool": list(self.pool.rows),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        device = next(self.network.parameters()).device
        self.pool.rows = [row.to(device) for row in state["pool"]]
