"""Trains the compact e4e encoder on images whose W+ codes are known.

Shapes: N images, L rows, D = 512; a *group* is several images of one person that differ in expression only.

    L = |E(x) - w|^2 / var(w)                                latent
      + a |(E(x_i) - E(x_0)) - (w_i - w_0)|^2 / var(w)       displacement inside a group (ours)
      + b sum_l |delta_l|                                    e4e's delta regulariser
      + c [ |G(E(x)) - x| + d(G(E(x)), x) ]                  image terms, on some images of a batch
      + m |F(G(E(x))) - F(x)|                                landmarks, on the same images; F has gradients

The displacement term is what talking needs: the error of w is nearly the same for all frames of a person and
cancels, whereas a mouth that opens moves w by far less than that error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from encoders.e4e import SIDE, CompactE4E
from encoders.geometry import MOUTH
from encoders.landmark_net import LandmarkNet
from stylegan2.images import resize
from stylegan2.pairs import FolderPairs
from stylegan2.protocol import Generator
from stylegan2.weights import atomic_path


@dataclass
class EncoderTrainConfig:
    """Batches of `batch` images, of which `group_share` come from groups when a folder of groups is given.

    warm_start: from the weights that encoder.weights names instead of random ones.
    """

    steps: int = 6000
    warm_start: bool = False
    batch: int = 16
    lr: float = 1e-3
    group_share: float = 0.5
    displacement_weight: float = 20.0
    delta_weight: float = 2e-4
    image_weight: float = 0.0
    landmark_weight: float = 0.0  # per px of the 256 px crop, the mouth's points counted three times
    image_batch: int = 2
    ema: float = 0.998
    augment: bool = True
    validation: int = 200  # pairs at the end of the folder that are never trained on
    save_every: int = 200
    bf16: bool = False  # autocast of the encoder; on a CPU without AVX-512 BF16 it is 25 times slower

    def __post_init__(self) -> None:
        if not 0 <= self.group_share <= 1 or self.image_batch > self.batch:
            raise ValueError("group_share lies in [0, 1] and image_batch is at most batch")


def augment(images_N3HW: Tensor, group: int, random: torch.Generator) -> Tensor:
    """Photograph-like changes that leave the code: shift, scale, colour, blur, noise; one draw per group.

    The alignment of a video wobbles by a pixel or two, cameras differ in colour and sharpness.
    """
    n = len(images_N3HW) // group

    def draw(low: float, high: float, *shape: int) -> Tensor:
        values = torch.empty(n, *shape).uniform_(low, high, generator=random)
        return values.repeat_interleave(group, 0)

    theta = torch.zeros(n * group, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = draw(0.985, 1.015)
    wobble = torch.empty(n * group, 2).uniform_(-0.006, 0.006, generator=random)  # differs between frames
    theta[:, :, 2] = draw(-0.01, 0.01, 2) + wobble
    grid = F.affine_grid(theta, list(images_N3HW.shape), align_corners=False)
    x = F.grid_sample(images_N3HW, grid, padding_mode="reflection", align_corners=False)
    # Colour is content, which the code must tell: it varies only as much as a camera's white balance does.
    x = (x + draw(-0.04, 0.04, 1, 1, 1)) * draw(0.95, 1.05, 1, 1, 1) * draw(0.98, 1.02, 3, 1, 1)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, soft, draw(0.0, 1.0, 1, 1, 1))
    return x + 0.02 * draw(0.0, 1.0, 1, 1, 1) * torch.randn(x.shape, generator=random)


def latent_scale(codes_NLD: Tensor) -> Tensor:
    """Variance of W+ over a set of codes, averaged over rows and width: a scalar."""
    return codes_NLD.var(0).mean()


@dataclass(frozen=True)
class ImageJudges:
    """What looks at G(E(x)): frozen networks, at SIDE px."""

    generator: Generator
    perceptual: Callable[[Tensor, Tensor], Tensor]
    landmarks: LandmarkNet

    def __call__(self, w_NLD: Tensor, true_N3HW: Tensor, config: EncoderTrainConfig) -> dict[str, Tensor]:
        made = resize(self.generator.synthesis(w_NLD), SIDE)
        points = (self.landmarks(made) - self.landmarks(true_N3HW)).norm(dim=2)
        return {
            "pixel": config.image_weight * (made - true_N3HW).abs().mean(),
            "perceptual": config.image_weight * self.perceptual(made, true_N3HW).mean(),
            "landmarks": config.landmark_weight * (points.mean() + 2 * points[:, MOUTH].mean()),
        }


class EncoderTrainer:
    """Encoder, its running mean (EMA), optimiser and random state: what a checkpoint holds."""

    def __init__(self, encoder: CompactE4E, config: EncoderTrainConfig, seed: int):
        self.encoder, self.config = encoder.requires_grad_(True).train(), config
        self.ema = deepcopy(encoder).requires_grad_(False).eval()
        self.optimiser = torch.optim.Adam(encoder.parameters(), lr=config.lr, betas=(0.9, 0.99))
        self.random = torch.Generator().manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.step = 0

    def save(self, path: Path) -> None:
        state = {
            "encoder": self.encoder.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": self.random.get_state(),
            "rng": self.rng.bit_generator.state,
            "step": self.step,
        }
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.encoder.load_state_dict(state["encoder"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.random.set_state(state["random"])
        self.rng.bit_generator.state = state["rng"]
        self.step = state["step"]

    def learning_rate(self) -> float:
        """Warm-up over 100 steps, cosine to a twentieth."""
        progress = min(self.step / self.config.steps, 1.0)
        shape = 0.05 + 0.475 * (1 + math.cos(math.pi * progress))
        return self.config.lr * min(1.0, (self.step + 1) / 100) * shape

    def draw(
        self, singles: FolderPairs, groups: FolderPairs | None, group: int
    ) -> tuple[Tensor, Tensor, int]:
        """Images, codes and how many of them (the first ones) are whole groups."""
        config = self.config
        n_groups = round(config.batch * config.group_share / group) if groups else 0
        parts: list[tuple[FolderPairs, np.ndarray]] = []
        if groups and n_groups:
            starts = group * self.rng.integers(0, len(groups) // group, n_groups)
            parts.append((groups, (starts[:, None] + np.arange(group)).ravel()))
        rest = config.batch - group * n_groups
        parts.append((singles, self.rng.integers(0, len(singles) - config.validation, rest)))
        # The network looks at SIDE px, so nothing larger is augmented or compared.
        images = torch.cat([resize(pairs.images(indices), SIDE) for pairs, indices in parts])
        codes = torch.cat([pairs.codes(indices) for pairs, indices in parts])
        return images, codes, group * n_groups

    def train_step(
        self,
        images: Tensor,
        codes: Tensor,
        in_groups: int,
        group: int,
        scale: Tensor,
        judges: ImageJudges | None,
    ) -> dict[str, float]:
        config = self.config
        inputs = images
        if config.augment:
            parts = [augment(images[:in_groups], group, self.random)] if in_groups else []
            inputs = torch.cat([*parts, augment(images[in_groups:], 1, self.random)])
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            base, deltas = self.encoder.split(inputs)
        base, deltas = base.float(), deltas.float()
        found = self.encoder.w_avg + base[:, None] + deltas

        terms = {"latent": (found - codes).square().mean() / scale}
        if in_groups:
            got, want = (w[:in_groups].unflatten(0, (-1, group)) for w in (found, codes))
            error = (got[:, 1:] - got[:, :1]) - (want[:, 1:] - want[:, :1])
            terms["displacement"] = config.displacement_weight * error.square().mean() / scale
        terms["delta"] = config.delta_weight * deltas.norm(dim=2).sum(1).mean()
        if judges is not None:
            some = torch.linspace(0, config.batch - 1, config.image_batch).round().long()
            terms |= judges(found[some], images[some], config)
        loss = torch.stack(list(terms.values())).sum()

        for pile in self.optimiser.param_groups:
            pile["lr"] = self.learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        decay = min(self.config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, value in zip(self.ema.parameters(), self.encoder.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        return {key: value.item() for key, value in terms.items()}


@torch.inference_mode()
def validate(encoder: CompactE4E, pairs: FolderPairs, count: int, scale: Tensor) -> float:
    """Share of the codes' variance that is left: mean |E(x) - w|^2 / var(w) over the last `count` pairs."""
    errors = []
    for start in range(len(pairs) - count, len(pairs), 20):
        indices = np.arange(start, min(start + 20, len(pairs)))
        errors.append((encoder(pairs.images(indices)) - pairs.codes(indices)).square().mean((1, 2)))
    return (torch.cat(errors).mean() / scale).item()


def train_encoder(
    trainer: EncoderTrainer,
    singles: FolderPairs,
    groups: FolderPairs | None,
    group: int,
    judges: ImageJudges | None,
    folder: Path,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Trains to config.steps from wherever the trainer stands; yields (step, losses) so the caller shows progress.

    Writes TensorBoard events and checkpoint.pt into `folder`.
    """
    config, scale = trainer.config, latent_scale(singles.codes(np.arange(min(2000, len(singles)))))
    with SummaryWriter(str(folder)) as board:
        while trainer.step < config.steps:
            images, codes, in_groups = trainer.draw(singles, groups, group)
            losses = trainer.train_step(images, codes, in_groups, group, scale, judges)
            for key, value in losses.items():
                board.add_scalar(f"train/loss/{key}", value, trainer.step)
            if trainer.step % config.save_every == 0 or trainer.step == config.steps:
                losses["val/latent"] = validate(trainer.ema, singles, config.validation, scale)
                board.add_scalar("val/latent", losses["val/latent"], trainer.step)
                trainer.save(folder / "checkpoint.pt")
            yield trainer.step, losses
