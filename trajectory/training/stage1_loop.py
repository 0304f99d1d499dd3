"""Stage 1's training loop: speech windows -> displacement coefficients, by Lightning Fabric on one or many devices.

Shapes: N clips, T frames, K rows in a window, M bins, L rows of W+, D = 512, C coefficients.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric

from encoders.content_hash import keyed_fields
from trajectory.data.windows import TrajectoryClip, WindowSampler
from trajectory.losses.rendered_losses import RenderedTerms
from trajectory.losses.stage1_losses import LossConfig, stage1_losses
from trajectory.model.displacement import DisplacementSpace, TrajectoryError
from trajectory.model.predictor import TrajectoryPredictor, save_trajectory
from trajectory.model.recurrent_net import TrajectoryNet
from trajectory.mouth_judge import MouthJudge
from trajectory.training.amplitude_calibration import Calibration, gain_of, validate
from trajectory.training.preview import Illustrator
from trajectory.training.train_state import TrainState
from trajectory.training.training_log import TrainingLog
from trajectory.walk import ClipWalk, begun, handed_on, walks_on


@dataclass
class TrainConfig:
    """steps, lr (Adam, cosine down to lr_end of itself after `warmup` steps), weight_decay (decoupled), grad_clip.

    ema: decay of the averaged weights, the ones validated and exported. val_every, save_every, log_every: in steps;
    pictures_every: a strip of frames and the lips' opening of a validation clip in TensorBoard (0 = never).
    select: which validation finds the best weights: "correlation" (of coefficients, weighted by how far each moves W), or
    "lmd_mouth" (trajectory.mouth_judge, on val_frames rendered frames). patience: validations in a row without a better
    one after which training ends early (0 = never).
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
    save_every: int = field(default=100, metadata={"keyed": False})
    log_every: int = field(default=10, metadata={"keyed": False})
    pictures_every: int = field(default=500, metadata={"keyed": False})
    select: Literal["correlation", "lmd_mouth"] = "correlation"
    val_frames: int = 24
    patience: int = 0
    calibration: Calibration = "scalar"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.val_every, self.save_every, self.log_every) < 1:
            raise ValueError("train.steps, val_every, save_every and log_every must be at least 1")
        if self.select not in ("correlation", "lmd_mouth"):
            raise ValueError(f"train.select is {self.select!r}; it must be 'correlation' or 'lmd_mouth'")
        if min(self.patience, self.pictures_every) < 0 or self.val_frames < 1:
            raise ValueError(
                "train.patience and pictures_every cannot be negative and train.val_frames must be at least 1"
            )
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
    rendered: RenderedTerms | None = None,
    lip_axis: np.ndarray | None = None,
    mouth_judge: MouthJudge | None = None,
    illustrator: Illustrator | None = None,
    resume: str | Path | None = "auto",
    stop_at: int | None = None,
) -> TrajectoryPredictor:
    """Trains `net`, keeps the EMA weights that validate best, calibrates their amplitude and exports them.

    folder: gets state.pt, trajectory.safetensors and tensorboard/. rendered None: no term that looks at frames;
    lip_axis (C,) None: no L_lip. mouth_judge: for select="lmd_mouth". illustrator: for pictures_every.
    resume: "auto" continues folder/state.pt if it is there, a path that file, None starts anew.
    stop_at: leaves after that step with the state saved, as a queue's time limit would (nothing is exported before
    the end). Raises TrajectoryError for a checkpoint of another configuration, and where a gradient is no longer finite
    (with float16, whose scaler skips such a step, it goes on).
    Resuming is exact, except that of several processes only the first goes on with its own random numbers, and that
    windows which walk through clips (ClipWalk) begin anew then.

    Over several processes each takes its share of one global batch, so that without dropout (whose numbers are each
    process's own), without batch norm (the paper's front end has it; its statistics are each process's own too) and where
    all windows are whole (no clip is shorter, no rest of a clip), the weights are those of one
    process with all of it.
    """
    if config.select == "lmd_mouth" and validation and mouth_judge is None:
        raise ValueError("select='lmd_mouth' needs a mouth_judge")
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
    precision = fabric.strategy.precision
    scaled = getattr(precision, "scaler", None) is not None
    signature = {
        "net": asdict(net.config),
        "space": space.layout(),
        "features": keyed_fields(sampler.features),
    }
    signature |= {"select": config.select, "carry": isinstance(sampler, ClipWalk)}
    rng = np.random.default_rng([config.seed, fabric.global_rank])
    sampler.rank, sampler.world = fabric.global_rank, fabric.world_size
    state = TrainState(
        net, space, optimiser, sampler, signature, rng, precision=precision, lip_axis=lip_axis_C
    )
    source = checkpoint if resume == "auto" else resume
    if source is not None and (resume != "auto" or checkpoint.is_file()):
        state.restore(source)
        if fabric.global_rank:  # the file holds the first process's random numbers
            state.reseed([config.seed, fabric.global_rank, state.step])
        if isinstance(sampler, ClipWalk) and not walks_on(state.carried, sampler):
            state.carried, sampler.lanes = None, None
    last = min(config.steps, stop_at or config.steps)

    with TrainingLog(folder, state.step, config.steps, config.log_every, fabric.is_global_zero) as log:
        model.train()
        while state.step < last and not state.gave_up(config.patience):
            batch = next(sampler)
            arrays = (batch.values, batch.d, batch.w_ref, batch.mask)
            values, d, w_ref, mask = (torch.from_numpy(x).to(fabric.device) for x in arrays)
            rate = learning_rate(state.step, config)
            for group in optimiser.param_groups:
                group["lr"] = rate

            carried = begun(state.carried, batch.fresh, fabric.device)
            coefficients, carried = model(values, space.identity(w_ref), carried)
            state.carried = None if batch.fresh is None else handed_on(carried)
            terms = stage1_losses(coefficients, d, mask, space, losses, state.lip_axis)
            if rendered and losses.wants_frames(state.step):
                terms |= rendered(coefficients, d, w_ref, mask, space, rng, batch.places)
            loss = torch.stack([getattr(losses, name) * term for name, term in terms.items()]).sum()

            optimiser.zero_grad()
            fabric.backward(loss)
            norm = fabric.clip_gradients(
                model, optimiser, max_norm=config.grad_clip, error_if_nonfinite=False
            )
            if norm is not None and not scaled and not torch.isfinite(norm):
                raise TrajectoryError(
                    f"Training diverged at step {state.step + 1}: lower train.lr (it is {config.lr:g}); the last "
                    "checkpoint is intact."
                )
            optimiser.step()
            state.step += 1
            state.update_ema(config.ema)

            log.train(state.step, terms | {"total": loss}, {"gradient": norm or 0.0, "lr": rate})
            if validation and (state.step % config.val_every == 0 or state.step == config.steps):
                report = validate(state.ema, space, sampler.features, validation)
                figures = {"score": report.score, "latent": report.latent}
                if mouth_judge:
                    figures["lmd_mouth"] = mouth_judge(state.ema, space)
                score = -figures["lmd_mouth"] if config.select == "lmd_mouth" else report.score
                state.keep_best(fabric.broadcast(score))  # all processes stop together
                log.validation(state.step, figures)
            draws = config.pictures_every and state.step % config.pictures_every == 0
            if draws and illustrator and state.lip_axis is not None:
                log.pictures(state.step, illustrator(state.ema, space, state.lip_axis))
            if state.step % config.save_every == 0 or state.step == last or state.gave_up(config.patience):
                fabric.barrier()
                if fabric.is_global_zero:
                    state.save(checkpoint)

    best = copy.deepcopy(state.ema)
    if validation:
        best.load_state_dict(state.best)
    predictor = TrajectoryPredictor(best, space, sampler.features).eval()
    report = validate(best, space, sampler.features, validation)
    predictor.gain.copy_(gain_of(report, config.calibration))
    if (state.step >= config.steps or state.gave_up(config.patience)) and fabric.is_global_zero:
        notes = {"steps": state.step, "val_score": report.score, "val_latent": report.latent}
        save_trajectory(predictor, folder / "trajectory.safetensors", notes)
    fabric.barrier()
    return predictor
