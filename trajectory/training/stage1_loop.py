"""Stage 1's training loop: speech windows -> displacement coefficients, by Lightning Fabric on one or many devices.

Shapes: N clips, T frames, K rows in a window, M bins, L rows of W+, D = 512, C coefficients.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from encoders.content_hash import keyed_fields
from trajectory.data.windows import TrajectoryClip, WindowSampler
from trajectory.losses.rendered_losses import RenderedLoss
from trajectory.losses.stage1_losses import LossConfig, stage1_losses, weighted_sum
from trajectory.model.displacement import DisplacementSpace, TrajectoryError
from trajectory.model.predictor import TrajectoryPredictor, save_trajectory
from trajectory.model.recurrent_net import TrajectoryNet
from trajectory.training.amplitude_calibration import gain_of, validate
from trajectory.training.preview import PreviewMaker
from trajectory.training.train_config import TrainConfig, learning_rate
from trajectory.training.train_state import TrainState, flat
from trajectory.training.training_log import TrainingLog

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def train(
    net: TrajectoryNet,
    space: DisplacementSpace,
    sampler: WindowSampler,
    validation: Sequence[TrajectoryClip],
    config: TrainConfig,
    losses: LossConfig,
    folder: str | Path,
    fabric: Fabric | None = None,
    rendered: RenderedLoss | None = None,
    lip_axis: np.ndarray | None = None,
    preview: PreviewMaker | None = None,
    resume: str | Path | None = "auto",
    stop_at: int | None = None,
) -> TrajectoryPredictor:
    """Trains `net`, keeps the EMA weights that validate best, calibrates their amplitude and exports them.

    folder: gets state.pt, trajectory.safetensors and tensorboard/. rendered: None: without L_lpips. lip_axis: (C,);
    None: without L_lip. preview: draws a validation clip every config.pictures_every steps. resume: "auto" continues
    folder/state.pt if it is there, a path that file, None starts anew. stop_at: saves the state after that step and
    returns without exporting, as at a time limit of a job queue.

    Raises TrajectoryError where a gradient is not finite (float16's gradient scaler skips such steps instead), and the
    error of `load_checkpoint` for a checkpoint of other settings. Resuming is exact, except that with several processes
    only the first one continues its random state.

    With several processes each takes its share of one global batch. The weights are those of one process with all of it,
    if there is no dropout (each process draws its own), no batch norm (the paper's front end; each process has its own
    statistics), and no clip shorter than a window.
    """
    # Device, optimiser and random numbers.
    if fabric is None:
        from lightning_fabric import Fabric

        fabric = Fabric(accelerator="cpu", devices=1)
    folder, checkpoint = Path(folder), Path(folder) / "state.pt"
    torch.manual_seed(config.seed + fabric.global_rank)
    decayed = {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": config.weight_decay}
    undecayed = {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0}
    groups = [decayed, undecayed]
    model, optimiser = fabric.setup(net, torch.optim.AdamW(groups, lr=config.lr))
    space = space.to(fabric.device)
    precision = fabric.strategy.precision
    scaled = getattr(precision, "scaler", None) is not None
    sampler.rank, sampler.world = fabric.global_rank, fabric.world_size
    rng = np.random.default_rng([config.seed, fabric.global_rank])

    # The state, restored if there is a checkpoint.
    settings = {"net": asdict(net.config), "space": space.layout()}
    settings["features"] = keyed_fields(sampler.features)
    lip_axis_C = None if lip_axis is None else torch.from_numpy(lip_axis).to(fabric.device)
    state = TrainState(net, space, optimiser, sampler, flat(settings), rng, precision, lip_axis_C)
    source = checkpoint if resume == "auto" else resume
    if source is not None and (resume != "auto" or checkpoint.is_file()):
        state.restore(Path(source))
        if fabric.global_rank:  # the file holds the first process's random numbers
            state.reseed([config.seed, fabric.global_rank, state.step])
    last = min(config.steps, stop_at or config.steps)

    with TrainingLog(folder, state.step, config.steps, config.log_every, fabric.is_global_zero) as log:
        model.train()
        while state.step < last and not state.out_of_patience(config.patience):
            # Sample a batch.
            batch = next(sampler)
            arrays = (batch.values, batch.d, batch.w_ref, batch.mask)
            values, d, w_ref, mask = (torch.from_numpy(x).to(fabric.device) for x in arrays)

            # Predict and compute the losses.
            coefficients, _ = model(values, space.identity(w_ref))
            terms = stage1_losses(coefficients, d, mask, space, losses, state.lip_axis)
            if rendered and losses.renders_at(state.step):
                terms["image"] = rendered(coefficients, d, w_ref, mask, space, rng, batch.places)
            loss = weighted_sum(terms, losses)

            # Compute and clip the gradient.
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

            # Update the weights and their average.
            rate = learning_rate(state.step, config)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            state.step += 1
            state.update_ema(config.ema)
            log.train(state.step, terms | {"total": loss}, {"gradient": norm or 0.0, "lr": rate})

            # Validate; the score is the same in all processes, so that all end at the same step.
            if validation and (state.step % config.val_every == 0 or state.step == config.steps):
                report = validate(state.ema, space, sampler.features, validation)
                state.keep_best(fabric.broadcast(report.score))
                log.validation(state.step, {"score": report.score, "latent": report.latent})

            # Draw a preview.
            due = config.pictures_every and state.step % config.pictures_every == 0
            if due and preview and state.lip_axis is not None:
                log.preview(state.step, preview(state.ema, space, state.lip_axis))

            # Save a checkpoint.
            ends = state.step == last or state.out_of_patience(config.patience)
            if state.step % config.save_every == 0 or ends:
                fabric.barrier()
                if fabric.is_global_zero:
                    state.save(checkpoint)

    # Calibrate the best weights on the validation clips; export them if training is over.
    best = copy.deepcopy(state.ema)
    if validation:
        best.load_state_dict(state.best)
    predictor = TrajectoryPredictor(best, space, sampler.features, lip_axis=state.lip_axis).eval()
    report = validate(best, space, sampler.features, validation)
    predictor.gain.copy_(gain_of(report, config.calibration))
    over = state.step >= config.steps or state.out_of_patience(config.patience)
    if over and fabric.is_global_zero:
        notes = {"steps": state.step, "val_score": report.score, "val_latent": report.latent}
        save_trajectory(predictor, folder / "trajectory.safetensors", notes)
    fabric.barrier()
    return predictor
