"""Pivotal tuning (Roich et al. 2021): keep the latents of one identity fixed, fit the generator to its frames.

Shapes: N frames, L rows of W+, D latent width; images (N, 3, H, W) in [-1, 1].
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from stylegan2.images import resize, to_tensor
from tuning.pivotal_losses import displacement_response, l2, nearby, perceptual_at


class TuningError(ValueError):
    """Tuning that cannot go on; the message says what to change."""


@dataclass
class PivotalConfig:
    """PTI's values. steps counts optimiser steps over all frames together; lr is relative (`relative_size`).

    threshold: stop when the perceptual distance, averaged over one pass of the frames, is at most this; one value
    per metric name, because networks differ in scale (None or absent: never). PTI: 0.06 for lpips-alex.
    train: patterns of parameter names (fnmatch); what synthesis does not use (the mapping network) never changes.
    perceptual_size: images are averaged to this size for the perceptual term; None compares at full size.
    locality_*: PTI's regulariser on random latents at distance alpha from the pivot, weighted against G; 0 is off.
    response_weight: keeps what displacements do to the lips (tuning.pivotal_losses.displacement_response); 0 is off, 2 costs
      little likeness (docs/RESULTS.md).
    activation_checkpointing: a third more computation for a fraction of the memory.
    """

    lr: float = 3e-4
    steps: int = 350
    batch: int = 1
    max_frames: int = 32
    l2_weight: float = 1.0
    lpips_weight: float = 1.0
    perceptual_size: int | None = 256
    threshold: dict[str, float | None] = field(default_factory=lambda: {"lpips-alex": 0.06})
    train: list[str] = field(default_factory=lambda: ["*"])
    locality_weight: float = 0.0
    locality_alpha: float = 30.0
    response_weight: float = 0.0
    activation_checkpointing: bool = field(default=False, metadata={"keyed": False})
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("lr", "steps", "batch", "max_frames"):
            if not getattr(self, name) > 0:
                raise ValueError(f"tuning.{name} must be positive, got {getattr(self, name)}")
        for name in ("l2_weight", "lpips_weight", "locality_weight", "locality_alpha", "response_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"tuning.{name} cannot be negative, got {getattr(self, name)}")
        if self.l2_weight + self.lpips_weight == 0:
            raise ValueError(
                "tuning.l2_weight and tuning.lpips_weight are both 0: nothing pulls towards the frames"
            )


@dataclass(frozen=True)
class Tuned:
    """generator: the tuned copy, frozen, in eval mode. pivots (N, L, D) and chosen (N,): the frames that were used,
    as indices into those given. before, after: mean l2 and perceptual distance over them. steps: one record each."""

    generator: Any
    pivots: Tensor
    chosen: list[int]
    before: dict[str, float]
    after: dict[str, float]
    steps: list[dict[str, float]]
    stopped: str


def uniform_frames(total: int, wanted: int) -> list[int]:
    """At most `wanted` indices of `total` frames, evenly spaced, first and last included."""
    if total <= wanted:
        return list(range(total))
    return sorted(set(np.linspace(0, total - 1, wanted).round().astype(int).tolist()))


def tune(
    generator: nn.Module,
    pivots_NLD: Tensor | np.ndarray,
    images: np.ndarray,
    perceptual: nn.Module,
    config: PivotalConfig,
    displacements_MLD: Tensor | np.ndarray | None = None,
    progress: bool = True,
) -> Tuned:
    """Tunes a copy of the generator so that G'(w_p) shows the images; the one given is left as it is.

    loss = l2_weight |x - G'(w_p)|^2 + lpips_weight LPIPS(x, G'(w_p)) [+ the regularisers], constant noise, Adam.

    images: uint8 (N, H, W, 3), one per pivot. perceptual: a network with a .name, (x, y) -> (N,).
    displacements_MLD: M offsets w - w_ref that speech makes, drawn from at random; needed by response_weight.
    Raises TuningError if the loss stops being finite or the frames do not match the pivots.
    """
    w_NLD, chosen = _pivots(generator, pivots_NLD, images, config)
    device = w_NLD.device
    base: Any = generator
    tuned: Any = copy.deepcopy(generator).eval()
    if config.activation_checkpointing:
        tuned.checkpoint_activations(True)
    parameters = _trained(tuned, config.train)
    targets = _targets(tuned, images, chosen, device)
    offsets = None if displacements_MLD is None else torch.as_tensor(displacements_MLD).to(w_NLD)
    if config.response_weight and offsets is None:
        raise TuningError(
            "tuning.response_weight is on, but no displacements were given: set it to 0 or pass some."
        )
    before = _fit(tuned, w_NLD, targets, perceptual, config)
    threshold = config.threshold.get(str(getattr(perceptual, "name", "")))
    random = torch.Generator().manual_seed(config.seed)
    optimiser = torch.optim.Adam(
        [{"params": [p], "lr": config.lr * float(relative_size(p))} for p in parameters]
    )
    batches = _batches(len(w_NLD), config.batch, random)
    window = -(-len(w_NLD) // config.batch)  # steps in one pass over the frames
    steps: list[dict[str, float]] = []
    stopped = "steps"

    with _bar(progress) as bar:
        task = bar.add_task("tuning", total=config.steps, loss="")
        for _ in range(config.steps):
            index = next(batches)
            w, x = w_NLD[index], targets[index]
            image = tuned.synthesis(w, noise="const")
            shown = resize(image, x.shape[-1])
            terms = {"l2": l2(shown, x).mean()}
            terms["perceptual"] = perceptual_at(perceptual, shown, x, config.perceptual_size).mean()
            loss = config.l2_weight * terms["l2"] + config.lpips_weight * terms["perceptual"]
            if config.locality_weight:
                terms["locality"] = _locality(tuned, base, w, perceptual, config, random)
                loss = loss + config.locality_weight * terms["locality"]
            if config.response_weight and offsets is not None:
                d = offsets[torch.randint(len(offsets), (len(w),), generator=random).to(device)]
                terms["response"] = displacement_response(tuned, base, w, d, image).mean()
                loss = loss + config.response_weight * terms["response"]
            if not loss.requires_grad:
                raise TuningError(f"tuning.train={config.train} names nothing that the images depend on.")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if not _finite(loss, parameters):
                raise TuningError(
                    f"Tuning diverged at step {len(steps)} (loss {loss.item():.3g}, or its gradient, is not finite): "
                    f"lower tuning.lr (it is {config.lr:g}), or check the pivots and the weights."
                )
            optimiser.step()

            steps.append({"loss": loss.item()} | {name: term.item() for name, term in terms.items()})
            bar.update(task, advance=1, loss=f"loss {steps[-1]['loss']:.4f}")
            recent = [step["perceptual"] for step in steps[-window:]]
            if threshold is not None and len(recent) == window and np.mean(recent) <= threshold:
                stopped = "threshold"
                break

    tuned.requires_grad_(False)
    if config.activation_checkpointing:
        tuned.checkpoint_activations(False)
    after = _fit(tuned, w_NLD, targets, perceptual, config)
    if not all(np.isfinite(value) for value in after.values()):
        raise TuningError(f"Tuning diverged at its last step: lower tuning.lr (it is {config.lr:g}).")
    return Tuned(tuned, w_NLD, chosen, before, after, steps, stopped)


def _pivots(
    generator: Any, pivots_NLD: Tensor | np.ndarray, images: np.ndarray, config: PivotalConfig
) -> tuple[Tensor, list[int]]:
    w_NLD = torch.as_tensor(pivots_NLD)
    expected = (len(images), generator.num_rows, generator.w_dim)
    if tuple(w_NLD.shape) != expected or len(images) == 0:
        raise TuningError(f"{len(images)} images need pivots {expected}, got {tuple(w_NLD.shape)}.")
    chosen = uniform_frames(len(images), config.max_frames)
    return w_NLD[chosen].detach().to(generator.w_avg.device, torch.float32).clone(), chosen


def _trained(generator: nn.Module, patterns: list[str]) -> list[nn.Parameter]:
    """The parameters whose names match; those that synthesis does not use get no gradient, so Adam skips them."""
    generator.requires_grad_(False)
    chosen = [
        p for name, p in generator.named_parameters() if any(fnmatchcase(name, glob) for glob in patterns)
    ]
    if not chosen:
        raise TuningError(f"No parameter of the generator matches tuning.train={patterns}.")
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


@torch.no_grad()
def relative_size(parameter: Tensor) -> Tensor:
    """Root mean square of a tensor, in [0.01, 1]: what Adam's step is multiplied with.

    PTI's learning rate is meant for StyleGAN2, which stores weights of unit variance and scales them at run time
    (equalised learning rate). Networks that store the weights as they are used need the same step relative to them,
    or the first hundred steps destroy what they know.
    """
    return parameter.square().mean().sqrt().clamp(0.01, 1.0)


def _targets(generator: Any, images: np.ndarray, chosen: list[int], device: torch.device) -> Tensor:
    """The chosen frames at their own size or the generator's, whichever is smaller: the loss is taken there."""
    size = min(images.shape[1], generator.resolution)
    return torch.cat([resize(to_tensor(images[t], device), size) for t in chosen])


def _batches(n: int, batch: int, random: torch.Generator) -> Iterator[Tensor]:
    """Shuffled passes over n frames without end; the last batch of a pass may be short."""
    while True:
        yield from torch.randperm(n, generator=random).split(batch)


def _locality(
    tuned: Any,
    base: Any,
    w_NLD: Tensor,
    perceptual: nn.Module,
    config: PivotalConfig,
    random: torch.Generator,
) -> Tensor:
    """L2 + LPIPS between both generators at a random latent near the pivots (PTI, section 3.3)."""
    near = nearby(base, w_NLD, config.locality_alpha, random)
    with torch.no_grad():
        old = base.synthesis(near, noise="const")
    new = tuned.synthesis(near, noise="const")
    return (l2(new, old) + perceptual_at(perceptual, new, old, config.perceptual_size)).mean()


def _finite(loss: Tensor, parameters: list[nn.Parameter]) -> bool:
    gradients = [p.grad for p in parameters if p.grad is not None]
    return bool(torch.isfinite(loss)) and bool(
        torch.isfinite(torch.stack([g.norm() for g in gradients])).all()
    )


@torch.no_grad()
def _fit(
    generator: Any, w_NLD: Tensor, targets: Tensor, perceptual: nn.Module, config: PivotalConfig
) -> dict[str, float]:
    """Mean l2 and perceptual distance over all chosen frames."""
    values = []
    for w, x in zip(w_NLD.split(1), targets.split(1), strict=True):
        image = resize(generator.synthesis(w, noise="const"), x.shape[-1])
        values.append(
            [l2(image, x).item(), perceptual_at(perceptual, image, x, config.perceptual_size).item()]
        )
    means = np.mean(values, axis=0)
    return {"l2": float(means[0]), "perceptual": float(means[1])}


def _bar(shown: bool) -> Progress:
    return Progress(
        *Progress.get_default_columns()[:3],
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
        disable=not shown,
    )
