"""A stage 1 that trains in a second: clips, and all arguments of `trajectory.training.stage1_loop.train`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from audio.features import AudioFeatures, FeatureConfig
from trajectory.data.augmentation import AugmentConfig
from trajectory.data.windows import TrajectoryClip, WindowSampler, offsets_of, store_features
from trajectory.losses.stage1_losses import LossConfig
from trajectory.model.displacement import DisplacementConfig, fit_space
from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet
from trajectory.training.train_config import TrainConfig

FEATURES = FeatureConfig(n_mels=40, context_ms=120)
ROWS, DIM = 4, 8


def toy_clips(
    folder: Path, frames: int = 30, splits: tuple[str, ...] = ("train", "train", "val")
) -> list[TrajectoryClip]:
    """Latents driven by the loudness of two bands of otherwise random feature rows."""
    clips = []
    axes = np.random.default_rng(99).standard_normal((2, ROWS, DIM))
    for n, split in enumerate(splits):
        rng = np.random.default_rng(n)
        step, rows = FEATURES.rows_per_frame, FEATURES.rows
        track = np.cumsum(rng.standard_normal((frames + 2, 2)), 0)
        track = (track - track.mean(0)) / track.std(0)
        values_JM = 0.1 * rng.standard_normal(((frames + 2) * step, 40))
        values_JM[:, :20] += np.repeat(track[:, :1], step, 0)
        values_JM[:, 20:] += np.repeat(track[:, 1:], step, 0)
        windows = np.stack([values_JM[t * step : t * step + rows] for t in range(frames)]).astype(np.float32)
        w_ref = rng.standard_normal((ROWS, DIM)).astype(np.float32)
        paths = folder / f"w{n}.safetensors", folder / f"x{n}.safetensors"
        w = w_ref + np.tensordot(track[1:-1], axes, 1)
        save_file({"w": w.astype(np.float16), "w_ref": w_ref}, paths[0])
        store_features(AudioFeatures(windows), FEATURES, paths[1])
        clips.append(TrajectoryClip(f"clip{n}", f"s{n}", split, frames, *paths))
    return clips


def parts(
    folder: Path, dropout: float = 0.1, identity_dropout: float = 0.5, **changes: Any
) -> dict[str, Any]:
    """net, space, sampler, validation clips, train config (with `changes`) and loss config."""
    clips = toy_clips(folder)
    torch.manual_seed(1)
    space = fit_space(
        offsets_of(clips[:2], 1000),
        np.random.default_rng(5).standard_normal((20, ROWS, DIM)),
        DisplacementConfig(2, 3),
    )
    config = TrajectoryConfig(
        channels=4, audio_dim=16, hidden=16, decoder=32, dropout=dropout, identity_dropout=identity_dropout
    )
    settings = {"steps": 20, "lr": 5e-3, "warmup": 5, "val_every": 5, "save_every": 5, "ema": 0.9}
    return {
        "net": TrajectoryNet(config, (FEATURES.rows, FEATURES.width), space.identity_dims, 2),
        "space": space,
        "sampler": WindowSampler(clips[:2], FEATURES, AugmentConfig(), batch=4, length=12, seed=3),
        "validation": clips[2:],
        "config": TrainConfig(**settings | changes),
        "losses": LossConfig(image=0),
    }


def parts_of_processes(folder: Path, batch: int) -> dict[str, Any]:
    """`parts` with `batch` windows in each process, and without dropout, because its random numbers differ between
    processes.
    """
    folder.mkdir(exist_ok=True)
    pieces = parts(folder, 0.0, 0.0, steps=12, val_every=4, save_every=4)
    pieces["sampler"].batch = batch
    return pieces
