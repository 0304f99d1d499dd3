"""Cuts MobileStyleGAN at a lower resolution and fits the image head it then needs.

The cut network repeats the student's features up to its own resolution; a head to RGB reads them. It starts as the
least-squares map from features to the true image (no style) and is then trained, with the last block, on pixel and
perceptual distance to the uncut network's image averaged down to the same size.
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
    """Three fits in turn: least squares, the head with its styles, head and last block (at a tenth of `lr`)."""

    samples: int = 800  # pairs whose features are sampled at `places` to fit the head alone
    places: int = 1024
    head_steps: int = 2000
    head_batch: int = 16
    steps: int = 600  # of head and last block together, with the perceptual term
    batch: int = 4
    lr: float = 5e-4
    crop: int = 128  # side of the random crop that the perceptual term sees, px
    pixel_weight: float = 1.0
    perceptual_weight: float = 1.0


def cut(teacher: MobileStyleGAN, resolution: int) -> MobileStyleGAN:
    """The teacher's mapping network and first blocks; the new head is not fitted yet."""
    student = MobileStyleGAN(resolution, teacher.mapping_layers, teacher.w_dim)
    ours = student.state_dict()
    shared = {k: v for k, v in teacher.state_dict().items() if k in ours and not k.startswith("head.")}
    student.load_state_dict(ours | shared)
    torch.nn.init.zeros_(student.head.affine.weight)  # style = 1 whatever w
    torch.nn.init.ones_(student.head.affine.bias)
    return student


@torch.no_grad()
def least_squares_head(student: MobileStyleGAN, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """min over A, b of || A features + b - image ||^2, by the normal equations, in float64."""
    gram: Tensor | None = None
    for w_NLD, image in pairs:
        x = student.features(w_NLD).flatten(0, 2).double()
        x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
        y = image.permute(0, 2, 3, 1).flatten(0, 2).double()
        step = torch.cat([x.T @ x, x.T @ y], 1)
        gram = step if gram is None else gram + step
    if gram is None:
        raise ValueError("no pairs to fit the image head on")
    size = len(gram)
    ridge = 1e-6 * gram[:, :size].diagonal().mean() * torch.eye(size, dtype=gram.dtype)
    solution = torch.linalg.solve(gram[:, :size] + ridge, gram[:, size:]).float()
    student.head.conv.weight.copy_(solution[:-1].T[:, :, None, None])
    student.head.conv.bias.copy_(solution[-1])  # type: ignore[union-attr]


@torch.no_grad()
def sample_pixels(
    student: MobileStyleGAN, pairs: Iterable[tuple[Tensor, Tensor]], count: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each image `count` random places: the head's row (N, D), features (N, count, C), targets (N, count, 3)."""
    random = torch.Generator().manual_seed(seed)
    for w_NLD, image in pairs:
        x = student.features(w_NLD).flatten(1, 2)
        y = image.permute(0, 2, 3, 1).flatten(1, 2)
        places = torch.randperm(x.shape[1], generator=random)[:count]
        yield w_NLD[:, -1], x[:, places].half(), y[:, places].half()


def fit_styles(
    student: MobileStyleGAN,
    pixels: list[tuple[Tensor, Tensor, Tensor]],
    config: HeadConfig,
) -> Iterator[dict[str, float]]:
    """Trains the head alone on sampled places: a 1x1 convolution needs no neighbours, so an epoch is cheap.

    Yields the losses of each of config.head_steps steps.
    """
    rows, features, targets = (torch.cat(part) for part in zip(*pixels, strict=True))
    head = student.head
    parameters = list(head.requires_grad_(True).parameters())
    optimiser = torch.optim.Adam(
        [{"params": head.affine.parameters(), "lr": 2e-4}, {"params": head.conv.parameters(), "lr": 1e-3}]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.head_steps)
    for _ in range(config.head_steps):
        batch = torch.randint(len(rows), (config.head_batch,))
        style = head.affine(rows[batch])[:, None, :]
        found = F.linear(features[batch].float() * style, head.conv.weight[:, :, 0, 0], head.conv.bias)
        loss = F.mse_loss(found, targets[batch].float())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        yield {"mse": loss.item()}
    head.requires_grad_(False)


def random_crops(x_NCHW: Tensor, y_NCHW: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The same random square of both."""
    top, left = (int(torch.randint(side - size + 1, ())) for side in x_NCHW.shape[-2:])
    window = (..., slice(top, top + size), slice(left, left + size))
    return x_NCHW[window], y_NCHW[window]


def train_head(
    student: MobileStyleGAN,
    pairs: Iterator[tuple[Tensor, Tensor]],
    perceptual: Callable[[Tensor, Tensor], Tensor],
    config: HeadConfig,
) -> Iterator[dict[str, float]]:
    """Trains head and last block in place (everything before stays the teacher's); yields config.steps losses."""
    student.requires_grad_(False)
    head, block = list(student.head.parameters()), list(student.blocks[-1].parameters())
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
        image = student.synthesis(w_NLD)
        pixel = (image - target).abs().mean()
        distance = perceptual(*random_crops(image, target, config.crop)).mean()
        loss = config.pixel_weight * pixel + config.perceptual_weight * distance
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head + block, 1.0)
        optimiser.step()
        schedule.step()
        yield {"pixel": pixel.item(), "perceptual": distance.item()}
    student.requires_grad_(False)
