"""Pivotal tuning (PTI, Roich et al. 2021): the latents of one identity are kept fixed while the generator is fitted to
its frames.

The loss is PTI's, or with loss=likeness the one of encoders/likeness.py, which also sees the identity. Shapes: N frames, L rows of W+, D latent width; images (N, 3, H, W) in [-1, 1].
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import cos, pi
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from encoders.likeness import VIEWS, Likeness, LikenessNetworks, LikenessWeights
from stylegan2.images import resize, to_tensor
from tuning.pivotal_losses import l2, locality, perceptual_at

WARM_UP = 10  # steps over which the learning rate rises with loss=likeness
TIMED = 8  # steps after which the time of the remaining ones is known


class TuningError(ValueError):
    """Tuning that cannot start or continue; the message says what to change."""


@dataclass
class PivotalConfig:
    """How the generator is tuned (tuning.*); the defaults are PTI's."""

    # "pti": L2 and the perceptual distance, at a constant learning rate. "likeness": also the identity, and the inner face at
    # twice the resolution (encoders/likeness.py); the learning rate falls to zero along a cosine.
    loss: Literal["pti", "likeness"] = "pti"
    lr: float = 3e-4  # learning rate of Adam, relative to each tensor's size (`relative_size`)
    steps: int = 350  # optimiser steps over all frames together
    # Time for these steps: as many are made as this machine makes within it. None: all of them.
    seconds: float | None = None
    batch: int = 1  # frames per step
    max_frames: int = 32  # largest number of frames used, evenly spaced; limits time and memory
    l2_weight: float = 1.0
    lpips_weight: float = 1.0  # weight of the perceptual distance
    perceptual_size: int | None = 256  # px at which the perceptual distance compares images; None: full size
    # With loss=pti, stop when the perceptual distance, averaged over one pass of the frames, is at most this. One value per
    # metric name, because networks differ in scale; None or absent: never.
    threshold: dict[str, float | None] = field(default_factory=lambda: {"lpips-alex": 0.06})
    # Patterns (fnmatch) of the names of parameters that are tuned. The mapping network never changes: synthesis does
    # not use it.
    train: list[str] = field(default_factory=lambda: ["*"])
    locality_weight: float = 0.0  # weight of PTI's locality regulariser; 0 is off
    locality_alpha: float = 30.0  # distance in W+ of its random latents from the pivot
    identity_weight: float = (
        0.2  # of the squared distance of identity embeddings; only loss=likeness has this term
    )
    # Recomputes activations in the backward pass, which takes a third more computation and a fraction of the memory.
    activation_checkpointing: bool = field(default=False, metadata={"keyed": False})
    seed: int = 0  # seed of the order of frames, the random latents and displacements

    def __post_init__(self) -> None:
        for name in ("lr", "steps", "batch", "max_frames"):
            if not getattr(self, name) > 0:
                raise ValueError(f"tuning.{name} must be positive, got {getattr(self, name)}")
        if self.perceptual_size is not None and self.perceptual_size < 1:
            raise ValueError(f"tuning.perceptual_size must be positive or null, got {self.perceptual_size}")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"tuning.seconds must be positive or null, got {self.seconds}")
        weights = ("l2", "lpips", "locality", "identity")
        for name in (*(f"{weight}_weight" for weight in weights), "locality_alpha"):
            if getattr(self, name) < 0:
                raise ValueError(f"tuning.{name} cannot be negative, got {getattr(self, name)}")
        if self.l2_weight + self.lpips_weight == 0:
            raise ValueError(
                "tuning.l2_weight and tuning.lpips_weight are both 0: no term fits the generator to the frames"
            )


@dataclass(frozen=True)
class Tuned:
    """A tuned generator, its pivots, and the losses before, during and after tuning."""

    generator: Any  # the tuned copy, frozen, in eval mode
    pivots: Tensor  # (N, L, D), of the frames that were used
    chosen: list[int]  # (N,), these frames as indices into those given
    before: dict[str, float]  # mean l2 and perceptual distance over them before tuning
    after: dict[str, float]  # and after it
    steps: list[dict[str, float]]  # losses of each step
    stopped: str  # "steps", "seconds" or "threshold"


def tune(
    generator: nn.Module,
    pivots_NLD: Tensor | np.ndarray,
    images: np.ndarray,
    landmarks: np.ndarray | Tensor,
    perceptual: nn.Module,
    config: PivotalConfig,
    likeness: LikenessNetworks | None = None,
    progress: bool = True,
) -> Tuned:
    """Tunes a copy of the generator so that G'(w_p) shows the images; the given generator is not changed.

    PTI's loss = l2_weight |x - G'(w_p)|^2 + lpips_weight LPIPS(x, G'(w_p)) [+ locality], constant noise, Adam.

    images: uint8 (N, H, W, 3), one per pivot. landmarks: theirs (N, 68, 2), px of a crop of 256 px, and likeness: its networks;
    both are for loss=likeness. perceptual: a network with a .name, (x, y) -> (N,). Raises TuningError if the loss stops being
    finite or the frames do not match the pivots.
    """
    w_NLD, chosen = _pivots(generator, pivots_NLD, images, config)
    device = w_NLD.device
    base: Any = generator
    tuned: Any = copy.deepcopy(generator).eval()
    if config.activation_checkpointing:
        tuned.checkpoint_activations(True)
    parameters = _trained_parameters(tuned, config.train)
    # The loss compares at the frames' size or the generator's, whichever is smaller
    size = min(images.shape[1], tuned.resolution)
    targets = torch.cat([resize(to_tensor(images[t], device), size) for t in chosen])
    points = torch.as_tensor(landmarks)[chosen].to(w_NLD)
    loss_of = _likeness(targets, points, likeness, config) if config.loss == "likeness" else None
    before = _mean_losses(tuned, w_NLD, targets, perceptual, config)
    threshold = config.threshold.get(str(getattr(perceptual, "name", "")))
    random = torch.Generator().manual_seed(config.seed)
    rates = [config.lr * float(relative_size(p)) for p in parameters]
    optimiser = torch.optim.Adam([{"params": [p], "lr": r} for p, r in zip(parameters, rates, strict=True)])
    batches = _batches(len(w_NLD), config.batch, random)
    steps_per_pass = -(-len(w_NLD) // config.batch)
    steps: list[dict[str, float]] = []
    total, stopped, started = config.steps, "steps", perf_counter()

    with _bar(progress) as bar:
        task = bar.add_task("tuning", total=total, loss="")
        while len(steps) < total:
            index, view = next(batches), VIEWS[len(steps) % len(VIEWS)]
            w, x = w_NLD[index], targets[index]
            image = resize(tuned.synthesis(w, noise="const"), x.shape[-1])
            # Reconstruction of a batch of frames, by PTI's loss or by ours
            if loss_of is None:
                distance = perceptual_at(perceptual, image, x, config.perceptual_size).mean()
                terms = {
                    "l2": config.l2_weight * l2(image, x).mean(),
                    "perceptual": config.lpips_weight * distance,
                }
            else:
                terms = loss_of.terms(image, index, view)
            # Regulariser: stay close to the base generator elsewhere
            if config.locality_weight:
                near = (config.locality_alpha, config.perceptual_size)
                drift = locality(tuned, base, w, perceptual, *near, random).mean()
                terms["locality"] = config.locality_weight * drift
            loss = torch.stack(list(terms.values())).sum()
            # Update
            if not loss.requires_grad:
                raise TuningError(f"tuning.train={config.train} names nothing that the images depend on.")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norms = [p.grad.norm() for p in parameters if p.grad is not None]
            if not bool(torch.isfinite(torch.stack([loss.detach(), *norms])).all()):
                raise TuningError(
                    f"Tuning diverged at step {len(steps)} (loss {loss.item():.3g}, or its gradient, is not finite): "
                    f"lower tuning.lr (it is {config.lr:g}), or check the pivots and the weights."
                )
            if loss_of is not None:
                for group, rate in zip(optimiser.param_groups, rates, strict=True):
                    group["lr"] = rate * _schedule(len(steps), total)
            optimiser.step()
            # Log, see how many steps there is time for, and stop early if the last pass is good enough
            steps.append({"loss": loss.item()} | {name: term.item() for name, term in terms.items()})
            if config.seconds is not None and len(steps) == TIMED < total:
                seconds = perf_counter() - started
                total = min(total, max(TIMED, int(TIMED * config.seconds / seconds)))
                stopped = "steps" if total == config.steps else "seconds"
            bar.update(task, advance=1, total=total, loss=f"loss {steps[-1]['loss']:.4f}")
            last_pass = [line["perceptual"] for line in steps[-steps_per_pass:] if "perceptual" in line]
            full = len(last_pass) == steps_per_pass
            if threshold is not None and full and np.mean(last_pass) <= threshold * config.lpips_weight:
                stopped = "threshold"
                break

    tuned.requires_grad_(False)
    if config.activation_checkpointing:
        tuned.checkpoint_activations(False)
    after = _mean_losses(tuned, w_NLD, targets, perceptual, config)
    if not all(np.isfinite(value) for value in after.values()):
        raise TuningError(f"Tuning diverged at its last step: lower tuning.lr (it is {config.lr:g}).")
    return Tuned(tuned, w_NLD, chosen, before, after, steps, stopped)


def uniform_frames(total: int, count: int) -> list[int]:
    """At most `count` indices of `total` frames, evenly spaced, first and last included."""
    if total <= count:
        return list(range(total))
    return sorted(set(np.linspace(0, total - 1, count).round().astype(int).tolist()))


@torch.no_grad()
def relative_size(parameter: Tensor) -> Tensor:
    """Root mean square of a tensor, limited to [0.01, 1]: the factor of its learning rate.

    PTI's learning rate is meant for StyleGAN2, which stores weights of unit variance and scales them at run time
    (equalised learning rate). Networks that store the weights as they are used need steps relative to the weights'
    size; with absolute steps the images are degraded after a hundred steps.
    """
    return parameter.square().mean().sqrt().clamp(0.01, 1.0)


def _likeness(
    targets: Tensor, landmarks: Tensor, networks: LikenessNetworks | None, config: PivotalConfig
) -> Likeness:
    if networks is None:
        raise TuningError("tuning.loss=likeness needs its networks: pass them, or set tuning.loss=pti.")
    weights = LikenessWeights(config.l2_weight, config.lpips_weight, config.identity_weight)
    return Likeness(targets, landmarks, networks, weights, config.perceptual_size or targets.shape[-1])


def _schedule(step: int, total: int) -> float:
    """Factor of the learning rate: a linear rise over WARM_UP steps, then a cosine to zero."""
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + cos(pi * step / total))


def _pivots(
    generator: Any, pivots_NLD: Tensor | np.ndarray, images: np.ndarray, config: PivotalConfig
) -> tuple[Tensor, list[int]]:
    """The pivots of the frames that are used, on the generator's device, and the frames' indices."""
    w_NLD = torch.as_tensor(pivots_NLD)
    expected = (len(images), generator.num_rows, generator.w_dim)
    if tuple(w_NLD.shape) != expected or len(images) == 0:
        raise TuningError(f"{len(images)} images need pivots {expected}, got {tuple(w_NLD.shape)}.")
    chosen = uniform_frames(len(images), config.max_frames)
    return w_NLD[chosen].detach().to(generator.w_avg.device, torch.float32).clone(), chosen


def _trained_parameters(generator: nn.Module, patterns: list[str]) -> list[nn.Parameter]:
    """The parameters whose names match; those that synthesis does not use get no gradient, so Adam skips them."""
    generator.requires_grad_(False)
    named = generator.named_parameters()
    chosen = [p for name, p in named if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not chosen:
        raise TuningError(f"No parameter of the generator matches tuning.train={patterns}.")
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def _batches(n: int, batch: int, random: torch.Generator) -> Iterator[Tensor]:
    """Endless shuffled passes over n frames; the last batch of a pass may be smaller."""
    while True:
        yield from torch.randperm(n, generator=random).split(batch)


@torch.no_grad()
def _mean_losses(
    generator: Any, w_NLD: Tensor, targets: Tensor, perceptual: nn.Module, config: PivotalConfig
) -> dict[str, float]:
    """Mean l2 and perceptual distance over all chosen frames."""
    values = []
    for w, x in zip(w_NLD.split(1), targets.split(1), strict=True):
        image = resize(generator.synthesis(w, noise="const"), x.shape[-1])
        distance = perceptual_at(perceptual, image, x, config.perceptual_size)
        values.append([l2(image, x).item(), distance.item()])
    mean_l2, mean_distance = np.mean(values, axis=0).tolist()
    return {"l2": mean_l2, "perceptual": mean_distance}


def _bar(shown: bool) -> Progress:
    return Progress(
        *Progress.get_default_columns()[:3],
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
        disable=not shown,
    )
