"""Stage 1's training loop: speech windows -> displacement coefficients, by Lightning Fabric on one or many devices.

Shapes: N clips, T frames, K rows in a window, M bins, L rows of W+, D = 512, C coefficients.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from trajectory.calibrate import Calibration, gain_of, validate
from trajectory.dataset import TrajectoryClip, WindowSampler
from trajectory.displacement import DisplacementSpace
from trajectory.losses import ImageTerm, LossConfig, stage1_losses
from trajectory.models import TrajectoryNet
from trajectory.predict import TrajectoryPredictor, save_trajectory
from trajectory.progress import TrainingLog
from trajectory.state import TrainState


@dataclass
class TrainConfig:
    """steps, lr (Adam, cosine down to lr_end of itself after `warmup` steps), weight_decay (decoupled), grad_clip.

    ema: decay of the averaged weights, the ones validated and exported. val_every, save_every, log_every: in steps.
    The paper gives no schedule: 1e-3 fits minutes of speech; GRID's hours want 1e-4 and many more steps.
    """

    steps: int = 1500
    lr: float = 1e-3
    lr_end: float = 0.05
    warmup: int = 50
    weight_decay: float = 1e-2
    grad_clip: float = 1.0
    ema: float = 0.99
    val_every: int = 100
    save_every: int = 100
    log_every: int = 10
    calibration: Calibration = "scalar"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.val_every, self.save_every, self.log_every) < 1:
            raise ValueError("train.steps, val_every, save_every and log_every must be at least 1")
        if self.lr <= 0 or self.grad_clip <= 0 or not (0 <= self.lr_end <= 1 and 0 <= self.ema < 1):
            raise ValueError("train: need lr > 0, grad_clip > 0, 0 <= lr_end <= 1 and 0 <= ema < 1")


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then lr (e + (1 - e) (1 + cos(pi t)) / 2) with t the share of steps done, e = lr_end."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    t = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.lr * (config.lr_end + (1 - config.lr_end) * 0.5 * (1 + math.cos(math.pi * min(t, 1))))


def train(
    net: TrajectoryNet,
    space: DisplacementSpace,
    sampler: WindowSampler,
    validation: Sequence[TrajectoryClip],
    config: TrainConfig,
    losses: LossConfig,
    folder: str | Path,
    fabric: Fabric | None = None,
    image_term: ImageTerm | None = None,
    lip_axis: np.ndarray | None = None,
    resume: str | Path | None = "auto",
    stop_at: int | None = None,
) -> TrajectoryPredictor:
    """Trains `net`, keeps the EMA weights that validate best, calibrates their amplitude and exports them.

    folder: gets state.pt, trajectory.safetensors and tensorboard/. image_term None: no L_lpips;
    lip_axis (C,) None: no L_lip.
    resume: "auto" continues folder/state.pt if it is there, a path that file, None starts anew.
    stop_at: leaves after that step with the state saved, as a queue's time limit would (nothing is exported before
    config.steps). Raises TrajectoryError for a checkpoint of another configuration.
    """
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    folder, checkpoint = Path(folder), Path(folder) / "state.pt"
    torch.manual_seed(config.seed + fabric.global_rank)
    decays = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decays, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.lr)
    model, optimiser = fabric.setup(net, optimiser)
    space = space.to(fabric.device)
    lip_axis_C = None if lip_axis is None else torch.from_numpy(lip_axis).to(fabric.device)
    signature = {"net": asdict(net.config), "space": space.layout(), "features": asdict(sampler.features)}
    rng = np.random.default_rng([config.seed, fabric.global_rank])
    sampler.rank = fabric.global_rank  # every process its own windows
    state = TrainState(net, space, optimiser, sampler, signature, rng)
    source = checkpoint if resume == "auto" else resume
    if source is not None and (resume != "auto" or checkpoint.is_file()):
        state.restore(source)
    last = min(config.steps, stop_at or config.steps)

    with TrainingLog(folder, state.step, config.steps, config.log_every, fabric.is_global_zero) as log:
        model.train()
        while state.step < last:
            batch = next(sampler)
            arrays = (batch.values, batch.d, batch.w_ref, batch.mask)
            values, d, w_ref, mask = (torch.from_numpy(x).to(fabric.device) for x in arrays)
            rate = learning_rate(state.step, config)
            for group in optimiser.param_groups:
                group["lr"] = rate

            coefficients, _ = model(values, space.identity(w_ref))
            terms = stage1_losses(coefficients, d, mask, space, losses, lip_axis_C)
            if image_term and losses.wants_image(state.step):
                size = losses.image_size
                terms["image"] = image_term(coefficients, d, w_ref, mask, space, size, rng)
            loss = torch.stack([getattr(losses, name) * term for name, term in terms.items()]).sum()

            optimiser.zero_grad()
            fabric.backward(loss)
            norm = fabric.clip_gradients(model, optimiser, max_norm=config.grad_clip)
            optimiser.step()
            state.step += 1
            state.update_ema(config.ema)

            log.train(state.step, terms | {"total": loss}, {"gradient": norm or 0.0, "lr": rate})
            if validation and (state.step % config.val_every == 0 or state.step == config.steps):
                report = validate(state.ema, space, sampler.features, validation)
                state.keep_best(report.score)
                log.validation(state.step, {"score": report.score, "latent": report.latent})
            if state.step % config.save_every == 0 or state.step == last:
                fabric.barrier()
                if fabric.is_global_zero:
                    state.save(checkpoint)

    best = copy.deepcopy(state.ema)
    if validation:
        best.load_state_dict(state.best)
    predictor = TrajectoryPredictor(best, space, sampler.features).eval()
    report = validate(best, space, sampler.features, validation)
    predictor.gain.copy_(gain_of(report, config.calibration))
    if state.step >= config.steps and fabric.is_global_zero:
        notes = {"steps": state.step, "val_score": report.score, "val_latent": report.latent}
        save_trajectory(predictor, folder / "trajectory.safetensors", notes)
    return predictor
