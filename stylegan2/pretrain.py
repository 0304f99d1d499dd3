"""Training of a StyleGAN2: adversarially on images, or by distillation from a teacher with the same W.

Both are one loop. Real images come from a source (`stylegan2.image_sources`); where it also gives the latents that made
them, the generator is asked for the same image (pixel and perceptual distance), with the adversarial term optional.
All randomness of a step is drawn from the seed (seed, step), so a resumed run repeats an uninterrupted one.

Shapes: N images, L rows of W+, D latent width.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stylegan2.image_sources import Source, copy_mapping
from stylegan2.networks.discriminator import Discriminator
from stylegan2.networks.generator import StyleGAN2, channel_table
from stylegan2.objectives import (
    default_r1_gamma,
    discriminator_loss,
    generator_loss,
    mix_styles,
    path_length_penalty,
    r1_penalty,
)
from stylegan2.pretrain_state import PretrainState, progress_bar, save_samples
from stylegan2.protocol import Generator
from stylegan2.weights import WeightsError, save_weights

Perceptual = Callable[[Tensor, Tensor], Tensor]
Log = Callable[[int, dict[str, float]], None]


@dataclass
class PretrainConfig:
    """What to learn from, network size, objective and schedule.

    images: a folder of real images; None distils `teacher`, a generator file or "embedded".
    channel_base, channel_max: min(base // size, max) channels; 32768 and 512 are config F.
    adversarial_weight: 0 trains without a discriminator (distillation only), `adversarial_start` delays it.
    pixel_weight, perceptual_weight: L1 and the perceptual function; distillation only.
    r1_gamma: None scales with the resolution (objectives.default_r1_gamma). Regularisers run every `*_every` steps.
    psi_low, psi_high: range of the truncation of a teacher's latents. mixing: probability of crossing two latents.
    ema_images: half-life of the generator's average, at most `ema_rampup` of the images seen so far.
    minutes: stops, with everything saved, after that time. half: the exported file is float16.
    """

    images: str | None = None
    teacher: str = "embedded"
    resolution: int = 256
    channel_base: int = 16384
    channel_max: int = 512
    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 8
    steps: int = 25_000
    batch: int = 16
    lr: float = 0.002
    adversarial_weight: float = 1.0
    adversarial_start: int = 0
    pixel_weight: float = 1.0
    perceptual_weight: float = 1.0
    r1_gamma: float | None = None
    r1_every: int = 16
    path_weight: float = 0.0
    path_every: int = 4
    mixing: float = 0.9
    psi_low: float = 0.5
    psi_high: float = 1.0
    flip: bool = True
    ema_images: float = 10_000
    ema_rampup: float = 0.05
    precision: Literal["float32", "bfloat16"] = "float32"
    minutes: float | None = None
    log_every: int = 10
    save_every: int = 1000
    half: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch",
            "r1_every",
            "path_every",
            "log_every",
            "save_every",
            "channel_base",
            "channel_max",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("adversarial_weight", "pixel_weight", "perceptual_weight", "path_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative, got {getattr(self, name)}")
        if not (self.lr > 0 and 0 <= self.mixing <= 1 and 0 <= self.psi_low <= self.psi_high):
            raise ValueError("need lr > 0, 0 <= mixing <= 1 and 0 <= psi_low <= psi_high")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be float32 or bfloat16, got {self.precision!r}")
        if self.images is not None and not self.adversarial_weight:
            raise ValueError("images are learned from a discriminator: adversarial_weight must be above 0")
        channel_table(self.resolution)


def build_networks(
    config: PretrainConfig, teacher: Generator | None = None, device: torch.device | str = "cpu"
) -> tuple[StyleGAN2, Discriminator | None]:
    """New networks of the configured size; a student gets its teacher's mapping network and w_avg, frozen."""
    torch.manual_seed(config.seed)
    channels = channel_table(config.resolution, config.channel_base, config.channel_max)
    z_dim, w_dim, layers = config.z_dim, config.w_dim, config.mapping_layers
    if teacher is not None:
        w_dim = teacher.w_dim
        z_dim = getattr(teacher, "z_dim", w_dim)
        layers = (
            teacher.mapping.num_layers
            if isinstance(teacher, StyleGAN2)
            else getattr(teacher, "mapping_layers", 8)
        )
    generator = StyleGAN2(config.resolution, z_dim, w_dim, channels, layers)
    if teacher is not None:
        copy_mapping(teacher, generator)
        generator.mapping.requires_grad_(False)
    discriminator = Discriminator(config.resolution, channels) if config.adversarial_weight else None
    return generator.to(device), None if discriminator is None else discriminator.to(device)


def lazy_adam(module: nn.Module, lr: float, every: int | None) -> torch.optim.Adam:
    """Adam (0, 0.99); a regulariser at every k-th step adds 1/k steps, so lr and betas are rescaled by k / (k + 1)."""
    k = 1.0 if every is None else every / (every + 1)
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=lr * k, betas=(0.0, 0.99**k), eps=1e-8)


def pretrain(
    generator: StyleGAN2,
    discriminator: Discriminator | None,
    source: Source,
    config: PretrainConfig,
    folder: str | Path,
    perceptual: Perceptual | None = None,
    log: Log | None = None,
    resume: str | Path | None = "auto",
    notes: dict[str, Any] | None = None,
    stop_at: int | None = None,
    progress: bool = True,
) -> StyleGAN2:
    """Trains on the device where the networks are and returns the averaged generator.

    folder gets state.pt (to resume from), generator.safetensors (the average, with `notes`) and samples.png at
    every save. perceptual: (x, y) -> (N,), used where the source gives latents. resume: "auto" continues
    folder/state.pt if it is there, a path that file, None starts anew. stop_at leaves after that step, saved.
    Raises WeightsError for a checkpoint of another configuration, or when the loss is no longer finite.
    """
    folder, device = Path(folder), generator.w_avg.device
    g_optimiser = lazy_adam(generator, config.lr, config.path_every if config.path_weight else None)
    d_optimiser = lazy_adam(discriminator, config.lr, config.r1_every) if discriminator is not None else None
    state = PretrainState(generator, discriminator, g_optimiser, d_optimiser, config)
    state.resume(folder / "state.pt" if resume == "auto" else resume, required=resume != "auto")
    gamma = default_r1_gamma(config.resolution, config.batch) if config.r1_gamma is None else config.r1_gamma
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16")
    last, started = min(config.steps, stop_at or config.steps), time.monotonic()

    with progress_bar(progress) as bar:
        task = bar.add_task("pretrain", total=config.steps, completed=state.step, detail="")
        while state.step < last:
            step = state.step
            torch.manual_seed(config.seed * 1_000_003 + step)
            real, w = source(step)
            distilling = w is not None
            noise = "const" if distilling else "random"
            adversarial = discriminator is not None and step >= config.adversarial_start
            terms: dict[str, Tensor] = {}

            # generator: what it should show (distillation), and what the discriminator takes for real
            if discriminator is not None:
                discriminator.requires_grad_(False)
            with bf16:
                if w is None:
                    w = draw_latents(generator, config.batch, config.mixing)
                fake = generator.synthesis(w, noise)
                if distilling:
                    terms["pixel"] = (fake - real).abs().mean()
                    if perceptual is not None and config.perceptual_weight:
                        terms["perceptual"] = perceptual(fake, real).mean()
                if adversarial and discriminator is not None:
                    terms["adversarial"] = generator_loss(discriminator(fake))
            loss = fake.new_zeros(())
            for name, term in terms.items():
                loss = loss + getattr(config, f"{name}_weight") * term
            g_optimiser.zero_grad(set_to_none=True)
            if terms:
                loss.backward()
                g_optimiser.step()

            if config.path_weight and step % config.path_every == 0:
                with bf16:
                    w = draw_latents(generator, max(config.batch // 2, 1), config.mixing)
                    terms["path"], state.path_mean = path_length_penalty(
                        generator.synthesis, w, state.path_mean
                    )
                g_optimiser.zero_grad(set_to_none=True)
                (config.path_weight * config.path_every * terms["path"]).backward()
                g_optimiser.step()

            # discriminator: the images against the generator's, and now and then R1
            if adversarial and discriminator is not None and d_optimiser is not None:
                discriminator.requires_grad_(True)
                with bf16:
                    terms["discriminator"] = discriminator_loss(
                        discriminator(real), discriminator(fake.detach())
                    )
                d_optimiser.zero_grad(set_to_none=True)
                terms["discriminator"].backward()
                d_optimiser.step()
                if step % config.r1_every == 0:
                    with bf16:
                        terms["r1"] = r1_penalty(discriminator, real)
                    d_optimiser.zero_grad(set_to_none=True)
                    (gamma / 2 * config.r1_every * terms["r1"]).backward()
                    d_optimiser.step()

            state.step += 1
            state.update_ema(config)
            out_of_time = config.minutes is not None and time.monotonic() - started > config.minutes * 60
            saving = state.step % config.save_every == 0 or state.step == last or out_of_time
            if saving or state.step % config.log_every == 0:
                values = {name: term.item() for name, term in terms.items()}
                require_finite(values, state.step, config)
                bar.update(task, detail=" ".join(f"{name} {value:.3f}" for name, value in values.items()))
                if log is not None:
                    log(state.step, values)
            if saving:
                state.save(folder / "state.pt")
                made = {"steps": state.step, "images": state.step * config.batch, **(notes or {})}
                save_weights(
                    state.ema,
                    folder / "generator.safetensors",
                    "stylegan2",
                    state.ema.config,
                    made,
                    config.half,
                )
                save_samples(state.ema, folder / "samples.png", source(0) if distilling else None)
            bar.update(task, completed=state.step)
            if out_of_time:
                break
    return state.ema


def draw_latents(generator: StyleGAN2, n: int, mixing: float) -> Tensor:
    """(N, L, D) from new z, two crossed with probability `mixing`; moves w_avg while the mapping network trains."""
    z = torch.randn(2, n, generator.z_dim, device=generator.w_avg.device)
    w, other = generator.mapping(z[0]), generator.mapping(z[1])
    if w.requires_grad:
        generator.mapping.update_w_avg(w.detach())
    return mix_styles(w, other, generator.num_rows, mixing)


def require_finite(values: dict[str, float], step: int, config: PretrainConfig) -> None:
    bad = [name for name, value in values.items() if not abs(value) < float("inf")]
    if bad:
        raise WeightsError(
            f"Training diverged at step {step} ({', '.join(bad)} is not finite): lower lr (it is {config.lr:g}) "
            "or raise r1_gamma; the last saved state is intact."
        )
