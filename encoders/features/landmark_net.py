"""A small differentiable network from an aligned face to its 68 landmarks, trained on dlib's landmarks.

It provides gradients for fits and losses; reported figures are measured with dlib itself.
Shapes: N images, 68 points in px of the 256 px crop.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan2.images import resize
from stylegan2.latent_pairs import FolderPairs
from stylegan2.weights import fill, read_weights

EMBEDDED = Path(__file__).parents[1] / "assets" / "landmark_net.safetensors"
SIDE = 128  # px of the network's input
CROP = 256  # px of the crop in which landmarks are given


class LandmarkNet(nn.Module):
    """images [N, 3, H, W] in [-1, 1] -> landmarks [N, 68, 2] in px of a 256 px crop."""

    def __init__(self, width: int = 24):
        super().__init__()
        channels = [3, width, 2 * width, 4 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [nn.Conv2d(after, after, 3, 1, 1), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.out = nn.Sequential(
            nn.Flatten(), nn.Linear(channels[-1] * 16, 256), nn.SiLU(), nn.Linear(256, 136)
        )
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(68, 2))

    def forward(self, images_N3HW: Tensor) -> Tensor:
        x = resize(images_N3HW, SIDE)
        return self.mean + CROP / 8 * self.out(self.features(x)).unflatten(1, (68, 2))


def load_landmark_net(path: str | Path = "embedded") -> LandmarkNet:
    """The network in a weight file, frozen; WeightsError for any other file."""
    path = EMBEDDED if str(path) == "embedded" else Path(path)
    return fill(LandmarkNet, read_weights(path), path).eval().requires_grad_(False)


def shifted(images: Tensor, points: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Augmentation: images [N, 3, H, W] and landmarks [N, 68, 2] rotated, scaled and shifted alike by random amounts."""
    n = len(images)
    angle = torch.empty(n).uniform_(-0.1, 0.1, generator=random)
    scale = torch.empty(n).uniform_(0.93, 1.07, generator=random)
    move = torch.empty(n, 2).uniform_(-0.04, 0.04, generator=random)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(n, 2, 2)
    turn = turn * scale[:, None, None]
    grid = F.affine_grid(torch.cat([turn, move[:, :, None]], 2), list(images.shape), align_corners=False)
    x = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    # grid_sample reads input = turn @ output + move in [-1, 1] coordinates; points move by the inverse map.
    centred = (points + 0.5) * (2 / CROP) - 1 - move[:, None]
    return x, ((centred @ torch.linalg.inv(turn).transpose(1, 2)) + 1) * (CROP / 2) - 0.5


def train_landmark_net(
    net: LandmarkNet, pairs: FolderPairs, labels: np.ndarray, steps: int, seed: int, batch: int = 32
) -> Iterator[float]:
    """Trains in place on labels float32 [n, 68, 2] (nan where no face was found); yields each step's loss in px.

    The last tenth of the pairs is not used, so that it can serve for validation.
    """
    random, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    usable = np.flatnonzero(np.isfinite(labels[:, 0, 0]))
    usable = usable[usable < 0.9 * len(pairs)]
    net.mean.copy_(torch.from_numpy(labels[usable].mean(0)))
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for _ in range(steps):
        indices = rng.choice(usable, batch, replace=False)
        images, points = shifted(
            resize(pairs.images(indices), SIDE), torch.from_numpy(labels[indices].astype(np.float32)), random
        )
        loss = (net(images) - points).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        yield loss.item()
