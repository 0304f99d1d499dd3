"""Trains the audio-visual sync network on clips with sound in sync with the lips; no other labels are needed.

    L = InfoNCE among the windows of each clip (audio.sync.lip_sync_net.contrastive_loss)

The only negatives are other moments of the same clip. Shapes: C clips of a batch, W windows, T frames, S = 48 px,
K = 20 rows of M mels in a window.
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
from encoders.training.loop import training_loop, warm_up_cosine
from encoders.training.resume import Part, TrainingError, load_checkpoint, save_checkpoint, settings_of

# Settings that may change when a run is resumed: length, saving interval, folders of the clips.
FREE = {"steps", "save_every", "folders", "held"}


@dataclass
class SyncTrainConfig:
    """Data and training settings of the sync network (sync_train.*)."""

    # Folders of prepared clips whose `train` split is used for training; empty: this run's clips.
    folders: tuple[str, ...] = ()
    # Folder of prepared clips on whose `seen` and `unseen` splits the accuracy is measured; None: this run's clips.
    held: str | None = None
    steps: int = 2000
    clips: int = 4  # clips in a batch
    windows: int = 32  # windows of each clip in a batch: one positive and 31 negatives for each
    lr: float = 2e-3  # learning rate of AdamW
    weight_decay: float = 1e-2  # weight decay of the network; the temperature has none
    # Augment mouths and sounds, so that the network generalises to other faces and voices
    augment: bool = True
    save_every: int = 200  # steps between checkpoints, each with a validation
    seed: int = 0

    def __post_init__(self) -> None:
        self.folders = tuple(self.folders)
        if min(self.steps, self.clips, self.save_every) < 1 or self.windows < 2:
            raise ValueError(
                "sync_train.steps, clips and save_every must be at least 1 and windows at least 2: "
                "a single window has no negatives."
            )


@dataclass(frozen=True, eq=False)
class SyncClip:
    """mouths uint8 (T, S, S), sounds float32 (T - 4, K, M) of one clip, and its 16 kHz waveform."""

    mouths: np.ndarray
    sounds: np.ndarray
    waveform: np.ndarray

    @classmethod
    def of(cls, clip: FrameClip, config: SyncConfig) -> SyncClip:
        mouths = np.stack([mouth_picture(np.asarray(frame)) for frame in clip.frames])
        sounds = sound_windows(Waveform(clip.waveform), len(clip), config)
        return cls(mouths, sounds, clip.waveform)


def accuracy(net: LipSyncNet, clips: Sequence[SyncClip], late: int = 0) -> dict[str, float]:
    """Measures on clips whose lips are delayed by `late` frames (the first picture repeated, the last ones dropped).

    found: the share of clips whose offset is found within one frame; offset: the median; confidence and distance:
    the means.
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
    """Network, temperature, optimiser and random state, on the network's device.

    Raises TrainingError if no clip has config.windows windows.
    """

    def __init__(self, net: LipSyncNet, clips: Sequence[SyncClip], config: SyncTrainConfig) -> None:
        usable = [clip for clip in clips if len(clip.sounds) >= config.windows]
        if not usable:
            raise TrainingError(
                f"None of the {len(clips)} training clips has {config.windows} windows: lower sync_train.windows or "
                "give longer clips."
            )
        self.net, self.config, self.clips = net.train().requires_grad_(True), config, usable
        self.windows = [mouth_windows(clip.mouths) for clip in usable]  # views: each frame is stored once
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0), device=next(net.parameters()).device))
        self.temperature = nn.ParameterDict({"log_scale": self.log_scale})
        groups = [
            {"params": list(net.parameters()), "weight_decay": config.weight_decay},
            {"params": [self.log_scale], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=config.lr)
        self.random = torch.Generator().manual_seed(config.seed)
        self.rng = np.random.default_rng(config.seed)
        self.settings = settings_of(config, FREE)
        self.step = 0

    @property
    def parts(self) -> dict[str, Part]:
        return {"net": self.net, "temperature": self.temperature, "optimiser": self.optimiser}

    def save(self, path: Path) -> None:
        save_checkpoint(path, self.parts, self.random, self.rng, self.step, self.settings)

    def load(self, path: Path) -> None:
        """Resumes from a checkpoint of the same network; TrainingError for another one."""
        self.step = load_checkpoint(path, self.parts, self.random, self.rng, self.settings, "sync network")

    def learning_rate(self) -> float:
        """A warm-up over 50 steps and a cosine to a fiftieth."""
        return warm_up_cosine(self.config.lr, self.step, self.config.steps, warm_up=50, last=0.02)

    def draw(self) -> tuple[Tensor, Tensor]:
        """mouths (C, W, 5, S, S) and sounds (C, W, K, M): windows of each clip at different moments."""
        n, size = len(self.clips), self.config.clips
        mouths, sounds = [], []
        for index in self.rng.choice(n, size, replace=n < size):
            chosen = self.rng.choice(len(self.clips[index].sounds), self.config.windows, replace=False)
            mouths.append(self.windows[index][chosen])
            sounds.append(self.clips[index].sounds[chosen])
        return torch.from_numpy(np.stack(mouths)), torch.from_numpy(np.stack(sounds))

    def train(self, validation: Sequence[SyncClip], folder: Path) -> Iterator[tuple[int, dict[str, float]]]:
        """Trains as `training_loop` describes; val/found is the accuracy on the validation clips."""

        def validate() -> dict[str, float]:
            self.net.eval()
            measures = accuracy(self.net, validation) if validation else {}
            self.net.train()
            return measures

        return training_loop(self, self.train_step, validate, folder, "sync_train.lr")

    def train_step(self) -> dict[str, float]:
        """One step; returns the loss and the gradient's norm."""
        # Batch
        device = self.log_scale.device
        mouths, sounds = self.draw()
        if self.config.augment:
            mouths, sounds = augmented_mouths(mouths, self.random), augmented_sounds(sounds, self.random)
        # Embeddings and loss
        c, w = mouths.shape[:2]
        lips_CWD = self.net.lips(mouths.flatten(0, 1).to(device)).unflatten(0, (c, w))
        sounds_CWD = self.net.sounds(sounds.flatten(0, 1).to(device)).unflatten(0, (c, w))
        loss = contrastive_loss(lips_CWD, sounds_CWD, self.log_scale.exp().clamp(max=50.0))
        # Update
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return {"contrastive": loss.item(), "gradient": norm.item()}


def augmented_mouths(mouths_CW5SS: Tensor, random: torch.Generator) -> Tensor:
    """Shift, scale, mirror, blur, contrast and noise, drawn once per clip, as between other heads, cameras and
    detectors.
    """
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
    """A smooth gain over the mel bands (microphone), a shift by one band (voice) and noise, drawn once per clip."""
    clips, bands = len(sounds_CWKM), sounds_CWKM.shape[-1]
    curve = torch.randn(clips, 1, 5, generator=random) * 0.3
    gain = F.interpolate(curve, size=bands, mode="linear", align_corners=True)[:, :, None]
    shifts = torch.randint(-1, 2, (clips,), generator=random).tolist()
    sources = [torch.arange(bands).sub(shift).clamp(0, bands - 1) for shift in shifts]
    shifted = torch.stack([x[..., source] for x, source in zip(sounds_CWKM, sources, strict=True)])
    noise = torch.randn(shifted.shape, generator=random) * 0.3 * torch.rand(clips, 1, 1, 1, generator=random)
    return shifted + gain + noise
