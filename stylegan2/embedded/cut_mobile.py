"""Cuts MobileStyleGAN at a lower resolution and fits the image head that the cut network needs.

The cut network consists of the mapping network and the blocks up to its resolution. Its new head to RGB starts as the
least-squares map from features to the true image (without styles) and is then trained, with the last block, on pixel
and perceptual distance to the image of the uncut network, averaged down to the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan2.networks.mobile_stylegan import MobileStyleGAN


@dataclass
class HeadConfig:
    """How the head is fitted: by least squares, then alone with its styles, then together with the last block."""

    samples: int = 800  # images for fitting the head alone (400 for the embedded weights)
    places: int = 1024  # random pixels of each of these images
    head_steps: int = 2000  # steps of the head alone (1,500 for the embedded weights)
    # Images per step of the head alone; large, because single pixels are fast to compute
    head_batch: int = 16
    steps: int = 600  # steps of head and last block together (240 for the embedded weights)
    batch: int = 4  # images per step of head and last block
    lr: float = 5e-4  # learning rate of Adam for the head; a tenth of it for the last block
    crop: int = 128  # side of the random crop that the perceptual distance compares, px
    pixel_weight: float = 1.0  # weight of the mean absolute difference
    perceptual_weight: float = 1.0

    def __post_init__(self) -> None:
        counts = (self.samples, self.places, self.head_steps, self.head_batch, self.steps, self.batch)
        if min(counts) < 1 or self.crop < 16:
            raise ValueError(
                "fit: counts of samples, places, steps and batches are at least 1, crop is at least 16"
            )


def cut(uncut: MobileStyleGAN, resolution: int) -> MobileStyleGAN:
    """The uncut network's mapping network and first blocks, with a new head that is not fitted yet."""
    network = MobileStyleGAN(resolution, uncut.mapping_layers, uncut.w_dim)
    new = network.state_dict()
    shared = {k: v for k, v in uncut.state_dict().items() if k in new and not k.startswith("head.")}
    network.load_state_dict(new | shared)
    torch.nn.init.zeros_(network.head.affine.weight)  # style 1 for every w
    torch.nn.init.ones_(network.head.affine.bias)
    return network


@torch.no_grad()
def least_squares_head(network: MobileStyleGAN, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """min over A, b of || A features + b - image ||^2, by the normal equations in float64. pairs: (W+, images)."""
    gram: Tensor | None = None
    for w_NLD, image in pairs:
        x = network.features(w_NLD).flatten(0, 2).double()
        x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
        y = image.permute(0, 2, 3, 1).flatten(0, 2).double()
        step = torch.cat([x.T @ x, x.T @ y], 1)
        gram = step if gram is None else gram + step
    if gram is None:
        raise ValueError("no pairs to fit the image head on")
    size = len(gram)
    ridge = 1e-6 * gram[:, :size].diagonal().mean() * torch.eye(size, dtype=gram.dtype)
    solution = torch.linalg.solve(gram[:, :size] + ridge, gram[:, size:]).float()
    network.head.conv.weight.copy_(solution[:-1].T[:, :, None, None])
    network.head.conv.bias.copy_(solution[-1])  # type: ignore[union-attr]


@torch.no_grad()
def sample_pixels(
    network: MobileStyleGAN, pairs: Iterable[tuple[Tensor, Tensor]], count: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each pair, at `count` random pixels: the head's row of W+ (N, D), features (N, count, C), RGB (N, count, 3)."""
    random = torch.Generator().manual_seed(seed)
    for w_NLD, image in pairs:
        x = network.features(w_NLD).flatten(1, 2)
        y = image.permute(0, 2, 3, 1).flatten(1, 2)
        places = torch.randperm(x.shape[1], generator=random)[:count]
        yield w_NLD[:, -1], x[:, places].half(), y[:, places].half()


def fit_styles(
    network: MobileStyleGAN,
    pixels: list[tuple[Tensor, Tensor, Tensor]],
    config: HeadConfig,
) -> Iterator[dict[str, float]]:
    """Trains the head alone on sampled pixels, as a 1x1 convolution needs no neighbours; yields the loss of each step."""
    rows, features, targets = (torch.cat(part) for part in zip(*pixels, strict=True))
    head = network.head
    parameters = list(head.requires_grad_(True).parameters())
    optimiser = torch.optim.Adam(
        [{"params": head.affine.parameters(), "lr": 2e-4}, {"params": head.conv.parameters(), "lr": 1e-3}]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.head_steps)
    for _ in range(config.head_steps):
        batch = torch.randint(len(rows), (config.head_batch,))
        style = head.affine(rows[batch])[:, None, :]
        predicted = F.linear(features[batch].float() * style, head.conv.weight[:, :, 0, 0], head.conv.bias)
        loss = F.mse_loss(predicted, targets[batch].float())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        yield {"mse": loss.item()}
    head.requires_grad_(False)


def random_crops(x_NCHW: Tensor, y_NCHW: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The same random square crop of both images, (N, 3, size, size)."""
    top, left = (int(torch.randint(side - size + 1, ())) for side in x_NCHW.shape[-2:])
    window = (..., slice(top, top + size), slice(left, left + size))
    return x_NCHW[window], y_NCHW[window]


def train_head(
    network: MobileStyleGAN,
    pairs: Iterator[tuple[Tensor, Tensor]],
    perceptual: Callable[[Tensor, Tensor], Tensor],
    config: HeadConfig,
) -> Iterator[dict[str, float]]:
    """Trains head and last block in place, the rest being frozen; yields the losses of each step.

    pairs: endless (W+, true images). perceptual: (x, y) -> (N,).
    """
    network.requires_grad_(False)
    head, block = list(network.head.parameters()), list(network.blocks[-1].parameters())
    for parameter in head + block:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(
        [{"params": head, "lr": config.lr}, {"params": block, "lr": 0.1 * config.lr}], betas=(0.9, 0.99)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: (
            min(1.0, step / 50) * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / config.steps)).item())
        ),
    )
    for _ in range(config.steps):
        w_NLD, target = next(pairs)
        image = network.synthesis(w_NLD)
        pixel = (image - target).abs().mean()
        distance = perceptual(*random_crops(image, target, config.crop)).mean()
        loss = config.pixel_weight * pixel + config.perceptual_weight * distance
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head + block, 1.0)
        optimiser.step()
        schedule.step()
        yield {"pixel": pixel.item(), "perceptual": distance.item()}
    network.requires_grad_(False)
