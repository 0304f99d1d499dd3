"""Trains an e4e encoder: on images whose W+ codes are known, or as its paper does on photographs without codes.

Shapes: N images, L rows, D = 512; a *group* is several images of one person that differ in expression only.

    L = |E(x) - w|^2 / var(w)                                latent, where the code w is known
      + a |(E(x_i) - E(x_0)) - (w_i - w_0)|^2 / var(w)       displacement inside a group (ours)
      + b sum_l |delta_l|                                    e4e's delta regulariser
      + p |G(E(x)) - x| + q d(G(E(x)), x)                    image terms, on some images of a batch
      + m |F(G(E(x))) - F(x)|                                landmarks, on the same images; F has gradients
      + r (1 - <R(G(E(x))), R(x)>)                           identity, R a recognition network
      + s softplus(-D(w + delta_l))                          e4e's latent discriminator, mean over rows

The displacement term is what talking needs: the error of w is nearly the same for all frames of a person and
cancels, whereas a mouth that opens moves w by far less than that error. A full e4e learns one delta after another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from encoders.networks.e4e import FullEncoder
from encoders.networks.e4e_compact import CompactE4E
from encoders.networks.latent_discriminator import Adversary, AdversaryConfig
from encoders.training.encoder_data import Batch, Draw, augmented
from encoders.training.encoder_losses import ImageJudges
from encoders.training.loop import training
from encoders.training.resume import Part, load_checkpoint, save_checkpoint, settings_of

# What a resumed run may change: how long it goes on, how often it writes, where its files lie, what it is looked at with.
FREE = {"steps", "save_every", "validation", "bf16", "images", "identity"}


@dataclass
class EncoderTrainConfig:
    """network: which encoder is trained; source: on what.

    source: "pairs" (images with codes, of which `group_share` come from groups when a folder of groups is given), "live"
    (the same, drawn anew at every step), "photos" (the folder `images`) or "samples" (the generator's, without codes).
    warm_start: from the weights that encoder.weights names instead of random ones. identity: a file with the IR-SE
    recognition network, for identity_weight, and from which the backbone of a new full encoder starts.
    schedule: of the learning rate; "cosine" warms up over 100 steps and falls to a twentieth.
    progressive_start: step at which the first delta of a full encoder is added to w_0, then one more every
    progressive_every steps; None: all from the beginning. ema: 0 exports the last step's weights.
    pixel: "l1" or "l2"; image_size: px at which images are compared, of image_batch images a step.
    """

    network: Literal["compact", "full"] = "compact"
    source: Literal["pairs", "live", "photos", "samples"] = "pairs"
    images: str | None = None
    steps: int = 6000
    warm_start: bool = False
    batch: int = 16
    lr: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: float | None = 1.0  # norm of the gradient
    group_share: float = 0.5
    displacement_weight: float = 20.0
    delta_weight: float = 2e-4
    progressive_start: int | None = None
    progressive_every: int = 2000
    pixel: Literal["l1", "l2"] = "l1"
    pixel_weight: float = 0.0
    perceptual_weight: float = 0.0
    perceptual: Literal["st-lpips", "lpips"] = "st-lpips"
    landmark_weight: float = 0.0  # per px of the 256 px crop, the mouth's points counted three times
    identity_weight: float = 0.0
    identity: str | None = None
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)
    image_batch: int = 2
    image_size: int = 128
    ema: float = 0.998
    augment: bool = True
    validation: int = 200  # images at the end of the folder that are never trained on
    save_every: int = 200
    bf16: bool = False  # autocast of the encoder; on a CPU without AVX-512 BF16 it is 25 times slower

    def __post_init__(self) -> None:
        if not 0 <= self.group_share <= 1 or self.image_batch > self.batch:
            raise ValueError("group_share lies in [0, 1] and image_batch is at most batch")
        if self.validation < 1:
            raise ValueError(f"encoder_train.validation is {self.validation}; it must be 1 or more.")
        if self.source == "photos" and not self.images:
            raise ValueError("encoder_train.source=photos needs encoder_train.images=FOLDER.")
        if self.source in ("photos", "samples") and not (self.pixel_weight or self.perceptual_weight):
            raise ValueError(
                "without codes the images are all there is to learn from: set encoder_train.pixel_weight or "
                "encoder_train.perceptual_weight."
            )
        if self.identity_weight and not self.identity:
            raise ValueError(
                "encoder_train.identity_weight needs encoder_train.identity=FILE, an IR-SE recognition network; "
                "encoder_train.identity_weight=0 trains without it."
            )
        if self.progressive_start is not None and (self.network != "full" or self.progressive_every < 1):
            raise ValueError(
                "progressive_start needs encoder_train.network=full, and progressive_every at least 1"
            )

    @property
    def sees_images(self) -> bool:
        """Whether a term of the loss looks at G(E(x))."""
        weights = (self.pixel_weight, self.perceptual_weight, self.landmark_weight, self.identity_weight)
        return any(weights) or self.adversary.weight > 0


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


def latent_terms(found_NLD: Tensor, batch: Batch, config: EncoderTrainConfig) -> dict[str, Tensor]:
    """The terms that need codes: latent and, inside groups, displacement."""
    assert batch.codes is not None
    terms = {"latent": (found_NLD - batch.codes).square().mean() / batch.scale}
    if batch.in_groups:
        got, want = (w[: batch.in_groups].unflatten(0, (-1, batch.group)) for w in (found_NLD, batch.codes))
        error = (got[:, 1:] - got[:, :1]) - (want[:, 1:] - want[:, :1])
        terms["displacement"] = config.displacement_weight * error.square().mean() / batch.scale
    return terms


class EncoderTrainer:
    """Encoder, its running mean (EMA), optimiser, latent discriminator and random state: what a checkpoint holds.

    It works on the device where the encoder is.
    """

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
        if self.adversary is not None:
            parts["adversary"] = self.adversary
        return parts

    def save(self, path: Path) -> None:
        save_checkpoint(path, self.parts, self.random, self.rng, self.step, self.settings)

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint of the same networks; WeightsError for another one."""
        self.step = load_checkpoint(path, self.parts, self.random, self.rng, self.settings, "encoder")
        self.set_stage()

    def learning_rate(self) -> float:
        """Constant, or a warm-up over 100 steps and a cosine to a twentieth."""
        if self.config.schedule == "constant":
            return self.config.lr
        progress = min(self.step / self.config.steps, 1.0)
        shape = 0.05 + 0.475 * (1 + math.cos(math.pi * progress))
        return self.config.lr * min(1.0, (self.step + 1) / 100) * shape

    def set_stage(self) -> int:
        """Rows 0 ... stage are trained at this step; all of them, except while a full encoder adds its deltas."""
        config, last = self.config, self.encoder.num_rows - 1
        stage = stage_at(self.step, config.progressive_start, config.progressive_every, last)
        for encoder in (self.encoder, self.ema):
            if isinstance(encoder, FullEncoder):
                encoder.stage = stage
        return stage

    def train_step(self, batch: Batch, judges: ImageJudges | None) -> dict[str, float]:
        config, device = self.config, batch.images.device
        rows = self.set_stage() + 1
        inputs = augmented(batch, self.random) if config.augment else batch.images
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            base, deltas = self.encoder.split(inputs)
        base, deltas = base.float(), deltas.float()
        found = self.encoder.w_avg + base[:, None] + deltas

        terms = {} if batch.codes is None else latent_terms(found, batch, config)
        terms["delta"] = config.delta_weight * deltas.norm(dim=2).sum(1).mean()
        if judges is not None:
            some = torch.linspace(0, config.batch - 1, config.image_batch, device=device).round().long()
            terms |= judges(found[some], batch.images[some], config)
        if self.adversary is not None:
            terms["adversarial"] = config.adversary.weight * self.adversary.encoder_loss(found[:, :rows])
        loss = torch.stack(list(terms.values())).sum()

        for pile in self.optimiser.param_groups:
            pile["lr"] = self.learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        size = torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), config.clip or math.inf)
        self.optimiser.step()
        if self.adversary is not None and judges is not None:
            real = judges.sample_w(len(found), self.random)
            terms |= self.adversary.train_step(real, found[:, :rows], self.step, self.random)
        self.step += 1
        update_mean(self.ema, self.encoder, min(config.ema, self.step / (self.step + 10)))
        return {key: value.item() for key, value in (terms | {"gradient": size}).items()}


def train_encoder(
    trainer: EncoderTrainer,
    draw: Draw,
    validate: Callable[[nn.Module], dict[str, float]],
    judges: ImageJudges | None,
    folder: Path,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Trains as encoders.training.loop does; validate: measures of the running mean."""
    yield from training(
        trainer,
        lambda: trainer.train_step(draw(trainer.step), judges),
        lambda: validate(trainer.ema),
        folder,
        "encoder_train.lr",
    )
