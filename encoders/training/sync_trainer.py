"""Trains the audio-visual sync network on clips whose sound and lips belong together; nothing else is labelled.

    L = InfoNCE among the windows of each clip (audio.sync.lip_sync_net.contrastive_loss)

Other moments of the same clip are the only negatives. Shapes: C clips of a batch, W windows, T frames, S = 48 px.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio.sync.lip_sync_net import (
    LipSyncNet,
    SyncConfig,
    contrastive_loss,
    embed_clip,
    mouth_windows,
    sound_windows,
    sync_figures,
)
from audio.waveform import Waveform
from encoders.features.mouth_crop import mouth_picture
from encoders.records import FrameClip
from encoders.training.loop import training
from encoders.training.resume import Part, load_checkpoint, save_checkpoint, settings_of
from stylegan2.weights import WeightsError

# What a resumed run may change: how long it goes on, how often it writes, where its clips lie.
FREE = {"steps", "save_every", "folders", "held"}


@dataclass
class SyncTrainConfig:
    """A batch is `windows` windows of each of `clips` clips.

    folders: prepared clips to train on (their `train` split) instead of this run's own. held: prepared clips whose
    `seen` and `unseen` ones are never trained on and give the accuracy; None: this run's own.
    """

    folders: tuple[str, ...] = ()
    held: str | None = None
    steps: int = 2000
    clips: int = 4
    windows: int = 32
    lr: float = 2e-3
    weight_decay: float = 1e-2
    augment: bool = True
    save_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        self.folders = tuple(self.folders)
        if min(self.steps, self.clips, self.save_every) < 1 or self.windows < 2:
            raise ValueError(
                "sync_train.steps, clips and save_every must be at least 1 and windows at least 2: "
                "one window has nothing to be told apart from."
            )


@dataclass(frozen=True, eq=False)
class SyncClip:
    """mouths uint8 (T, S, S), sounds float32 (T - 4, K, M) of one clip, and its 16 kHz waveform."""

    name: str
    split: str
    mouths: np.ndarray
    sounds: np.ndarray
    waveform: np.ndarray

    @classmethod
    def of(cls, clip: FrameClip, config: SyncConfig) -> SyncClip:
        mouths = np.stack([mouth_picture(np.asarray(frame)) for frame in clip.frames])
        sounds = sound_windows(Waveform(clip.waveform), len(clip), config)
        return cls(clip.name, clip.split, mouths, sounds, clip.waveform)


def accuracy(net: LipSyncNet, clips: Sequence[SyncClip], late: int = 0) -> dict[str, float]:
    """Of clips whose lips come `late` frames late (their last pictures cut off, the first held):

    found: the share whose offset is found within one frame; offset: the median; confidence and distance: the means.
    """
    results = []
    for clip in clips:
        mouths = clip.mouths[np.clip(np.arange(len(clip.mouths)) - late, 0, len(clip.mouths) - 1)]
        results.append(sync_figures(*embed_clip(net, mouths, Waveform(clip.waveform))))
    offsets = [math.inf if r.offset is None else r.offset for r in results]
    return {
        "found": float(np.mean([abs(offset - late) <= 1 for offset in offsets])),
        "offset": float(np.median(offsets)),
        "confidence": float(np.mean([r.confidence for r in results])),
        "distance": float(np.mean([r.distance for r in results])),
    }


class SyncTrainer:
    """Network, temperature, optimiser and random state: what a checkpoint holds."""

    def __init__(self, net: LipSyncNet, clips: Sequence[SyncClip], config: SyncTrainConfig) -> None:
        usable = [clip for clip in clips if len(clip.sounds) >= config.windows]
        if not usable:
            raise WeightsError(
                f"None of the {len(clips)} training clips has {config.windows} windows: lower sync_train.windows or "
                "give longer clips."
            )
        self.net, self.config, self.clips = net.train().requires_grad_(True), config, usable
        self.windows = [mouth_windows(clip.mouths) for clip in usable]  # views: one float picture a frame
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0), device=next(net.parameters()).device))
        self.temperature = nn.ParameterDict({"log_scale": self.log_scale})
        groups = [
            {"params": list(net.parameters()), "weight_decay": config.weight_decay},
            {"params": [self.log_scale], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=config.lr)
        self.random = torch.Generator().manual_seed(config.seed)
        self.rng = np.random.default_rng(config.seed)
        self.step = 0

    @property
    def parts(self) -> dict[str, Part]:
        return {"net": self.net, "temperature": self.temperature, "optimiser": self.optimiser}

    def save(self, path: Path) -> None:
        save_checkpoint(path, self.parts, self.random, self.rng, self.step, settings_of(self.config, FREE))

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint of the same network; WeightsError for another one."""
        self.step = load_checkpoint(
            path, self.parts, self.random, self.rng, settings_of(self.config, FREE), "sync network"
        )

    def learning_rate(self) -> float:
        """A warm-up over 50 steps and a cosine to a fiftieth."""
        shape = 0.02 + 0.49 * (1 + math.cos(math.pi * min(self.step / self.config.steps, 1.0)))
        return self.config.lr * min(1.0, (self.step + 1) / 50) * shape

    def draw(self) -> tuple[Tensor, Tensor]:
        """mouths (C, W, 5, S, S) and sounds (C, W, K, M): windows of each clip at different moments."""
        mouths, sounds = [], []
        for index in self.rng.choice(
            len(self.clips), self.config.clips, replace=len(self.clips) < self.config.clips
        ):
            chosen = self.rng.choice(len(self.clips[index].sounds), self.config.windows, replace=False)
            mouths.append(self.windows[index][chosen])
            sounds.append(self.clips[index].sounds[chosen])
        return torch.from_numpy(np.stack(mouths)), torch.from_numpy(np.stack(sounds))

    def train_step(self) -> dict[str, float]:
        device = self.log_scale.device
        mouths, sounds = self.draw()
        if self.config.augment:
            mouths, sounds = augmented_mouths(mouths, self.random), augmented_sounds(sounds, self.random)
        c, w = mouths.shape[:2]
        lips = self.net.lips(mouths.flatten(0, 1).to(device)).unflatten(0, (c, w))
        voices = self.net.sounds(sounds.flatten(0, 1).to(device)).unflatten(0, (c, w))
        loss = contrastive_loss(lips, voices, self.log_scale.exp().clamp(max=50.0))

        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        size = nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return {"contrastive": loss.item(), "gradient": size.item()}


def augmented_mouths(mouths_CW5SS: Tensor, random: torch.Generator) -> Tensor:
    """Shift, scale, mirror, blur, contrast and noise, one draw a clip: another head, camera and detector."""
    clips = len(mouths_CW5SS)

    def draw(low: float, high: float) -> Tensor:
        return torch.empty(clips).uniform_(low, high, generator=random)

    theta = torch.zeros(clips, 2, 3)
    flip = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    size = draw(0.85, 1.15)
    theta[:, 0, 0], theta[:, 1, 1] = flip * size, size * draw(0.93, 1.07)
    theta[:, 0, 2], theta[:, 1, 2] = draw(-0.12, 0.12), draw(-0.12, 0.12)
    flat = mouths_CW5SS.flatten(1, 2)
    grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
    x = F.grid_sample(flat, grid, padding_mode="border", align_corners=False)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, soft, draw(0, 1)[:, None, None, None]) * draw(0.7, 1.4)[:, None, None, None]
    noise = torch.randn(x.shape, generator=random) * (0.15 * draw(0, 1))[:, None, None, None]
    return (x + noise).unflatten(1, mouths_CW5SS.shape[1:3])


def augmented_sounds(sounds_CWKM: Tensor, random: torch.Generator) -> Tensor:
    """Another microphone and voice: a smooth gain over the bands, a shift by a band, and noise, one draw a clip."""
    clips, bands = len(sounds_CWKM), sounds_CWKM.shape[-1]
    curve = torch.randn(clips, 1, 5, generator=random) * 0.3
    gain = F.interpolate(curve, size=bands, mode="linear", align_corners=True)[:, :, None]
    moves = torch.randint(-1, 2, (clips,), generator=random).tolist()
    moved = torch.stack(
        [
            x[..., torch.arange(bands).sub(move).clamp(0, bands - 1)]
            for x, move in zip(sounds_CWKM, moves, strict=True)
        ]
    )
    noise = torch.randn(moved.shape, generator=random) * 0.3 * torch.rand(clips, 1, 1, 1, generator=random)
    return moved + gain + noise


def train_sync(
    trainer: SyncTrainer, validation: Sequence[SyncClip], folder: Path
) -> Iterator[tuple[int, dict[str, float]]]:
    """Trains as encoders.training.loop does; val/found is the accuracy on the validation clips."""

    def validate() -> dict[str, float]:
        if not validation:
            return {}
        trainer.net.eval()
        found = accuracy(trainer.net, validation)
        trainer.net.train()
        return found

    yield from training(trainer, trainer.train_step, validate, folder, "sync_train.lr")
