"""Trains an e4e encoder: on images whose W+ codes are known, or as its paper does on photographs without codes.

Shapes: N images, L rows, D = 512; a *group* is several images of one person that differ in expression only.

    L = |E(x) - w|^2 / var(w)                                latent, where the code w is known
      + a |(E(x_i) - E(x_0)) - (w_i - w_0)|^2 / var(w)       displacement inside a group (ours)
      + b sum_l |delta_l|                                    e4e's delta regulariser
      + p |G(E(x)) - x| + q d(G(E(x)), x)                    image terms, on some images of a batch
      + m |F(G(E(x))) - F(x)|                                landmarks of the same images, F a landmark network
      + r (1 - <R(G(E(x))), R(x)>)                           identity, R a recognition network
      + s softplus(-D(w + delta_l))                          e4e's latent discriminator, mean over rows

The displacement term is needed for talking faces: the error of w is much larger than the change of w when the mouth
opens, but it is nearly the same in all frames of a person and cancels in differences. A full e4e is trained
progressively: its deltas are added one after another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from encoders.networks.e4e import FullEncoder
from encoders.networks.e4e_compact import CompactE4E
from encoders.networks.latent_discriminator import Adversary
from encoders.training.encoder_config import EncoderTrainConfig
from encoders.training.encoder_data import Draw, EncoderBatch, augmented
from encoders.training.encoder_losses import ImageLosses
from encoders.training.loop import training_loop, warm_up_cosine
from encoders.training.resume import Part, load_checkpoint, save_checkpoint, settings_of

# Settings that may change when a run is resumed: length, saving interval, file locations, validation, precision.
FREE = {"steps", "save_every", "validation", "bf16", "images", "identity"}

Validate = Callable[[nn.Module], dict[str, float]]  # encoder -> measures


def stage_at(step: int, start: int | None, every: int, last: int) -> int:
    """The last row that has a delta: 0 before `start`, then one more every `every` steps, up to `last`."""
    if start is None:
        return last
    return 0 if step < start else min(1 + (step - start) // every, last)


@torch.no_grad()
def update_mean(mean: nn.Module, module: nn.Module, decay: float) -> None:
    """mean <- decay mean + (1 - decay) module; buffers (w_avg, statistics of batch norm) are copied."""
    for average, value in zip(mean.parameters(), module.parameters(), strict=True):
        average.lerp_(value, 1 - decay)
    for average, value in zip(mean.buffers(), module.buffers(), strict=True):
        average.copy_(value)


def latent_terms(w_NLD: Tensor, batch: EncoderBatch, config: EncoderTrainConfig) -> dict[str, Tensor]:
    """The terms that need codes: latent and, inside groups, displacement."""
    assert batch.codes is not None
    terms = {"latent": (w_NLD - batch.codes).square().mean() / batch.scale}
    if batch.in_groups:
        w, target = (x[: batch.in_groups].unflatten(0, (-1, batch.group)) for x in (w_NLD, batch.codes))
        error = (w[:, 1:] - w[:, :1]) - (target[:, 1:] - target[:, :1])
        terms["displacement"] = config.displacement_weight * error.square().mean() / batch.scale
    return terms


class EncoderTrainer:
    """Encoder, its running mean (EMA), optimiser, latent discriminator and random state, on the encoder's device."""

    def __init__(self, encoder: CompactE4E | FullEncoder, config: EncoderTrainConfig, seed: int):
        self.encoder, self.config = encoder.requires_grad_(True).train(), config
        self.ema = deepcopy(encoder).requires_grad_(False).eval()
        self.optimiser = torch.optim.Adam(encoder.parameters(), lr=config.lr, betas=(0.9, 0.99))
        self.adversary: Adversary | None = None
        if config.adversary.weight:
            self.adversary = Adversary(encoder.w_avg.shape[-1], config.adversary, encoder.w_avg.device)
        self.random = torch.Generator("cpu").manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.settings = settings_of(config, FREE, seed=seed)
        self.step = 0

    @property
    def parts(self) -> dict[str, Part]:
        parts: dict[str, Part] = {"encoder": self.encoder, "ema": self.ema, "optimiser": self.optimiser}
        return parts if self.adversary is None else parts | {"adversary": self.adversary}

    def save(self, path: Path) -> None:
        save_checkpoint(path, self.parts, self.random, self.rng, self.step, self.settings)

    def load(self, path: Path) -> None:
        """Resumes from a checkpoint of the same networks; TrainingError for another one."""
        self.step = load_checkpoint(path, self.parts, self.random, self.rng, self.settings, "encoder")
        self.set_stage()

    def learning_rate(self) -> float:
        """Constant, or a warm-up over 100 steps and a cosine to a twentieth."""
        config = self.config
        if config.schedule == "constant":
            return config.lr
        return warm_up_cosine(config.lr, self.step, config.steps, warm_up=100, last=0.05)

    def set_stage(self) -> int:
        """Sets and returns the last row that has a delta at this step (full encoders only; else all rows have one)."""
        config, last = self.config, self.encoder.num_rows - 1
        stage = stage_at(self.step, config.progressive_start, config.progressive_every, last)
        for encoder in (self.encoder, self.ema):
            if isinstance(encoder, FullEncoder):
                encoder.stage = stage
        return stage

    def train(
        self, draw: Draw, validate: Validate, losses: ImageLosses | None, folder: Path
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """Trains as `training_loop` describes; validate: measures of the running mean."""
        step = lambda: self.train_step(draw(self.step), losses)  # noqa: E731
        return training_loop(self, step, lambda: validate(self.ema), folder, "encoder_train.lr")

    def train_step(self, batch: EncoderBatch, losses: ImageLosses | None) -> dict[str, float]:
        """One step; returns the weighted terms of the loss and the gradient's norm."""
        config, device = self.config, batch.images.device
        rows = self.set_stage() + 1

        # Encode the augmented images
        inputs = augmented(batch, self.random) if config.augment else batch.images
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            base, deltas = self.encoder.split(inputs)
        base, deltas = base.float(), deltas.float()
        w_NLD = self.encoder.w_avg + base[:, None] + deltas

        # Loss
        terms = {} if batch.codes is None else latent_terms(w_NLD, batch, config)
        terms["delta"] = config.delta_weight * deltas.norm(dim=2).sum(1).mean()
        if losses is not None:
            chosen = torch.linspace(0, config.batch - 1, config.image_batch, device=device).round().long()
            terms |= losses(w_NLD[chosen], batch.images[chosen], config)
        if self.adversary is not None:
            terms["adversarial"] = config.adversary.weight * self.adversary.encoder_loss(w_NLD[:, :rows])
        loss = torch.stack(list(terms.values())).sum()

        # Update of the encoder
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.encoder.parameters(), config.clip or math.inf)
        self.optimiser.step()

        # Update of the latent discriminator and of the running mean
        if self.adversary is not None and losses is not None:
            real = losses.sample_w(len(w_NLD), self.random)
            terms |= self.adversary.train_step(real, w_NLD[:, :rows], self.step, self.random)
        self.step += 1
        update_mean(self.ema, self.encoder, min(config.ema, self.step / (self.step + 10)))
        return {key: value.item() for key, value in (terms | {"gradient": norm}).items()}
