"""Audio-visual synchrony: an embedding network for mouths and sound, and the distances over offsets (LSE-D, LSE-C).

Both halves of the network embed the same 0.2 s: five video frames of the mouth, and the log-mel rows of their sound
(Chung and Zisserman 2016, "Out of Time"). Embeddings of the same moment are close, those of other moments of the clip
far apart. Shapes: T frames, W = T - 4 windows, D embedding width, S side of the mouth picture, K rows, M mels, C clips.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio.features import FeatureConfig, extract_features
from audio.waveform import Waveform

WINDOW = 5  # frames: 0.2 s
OFFSETS = 15  # largest offset searched, in frames, as in the public SyncNet script
SIDE = 48  # px of the mouth picture
CONSTANT = 1e-4  # standard deviation of embeddings below which they count as constant


@dataclass
class SyncConfig:
    """Sizes of the sync network (sync_net.*); the defaults give a weight file below 1 MB."""

    channels: tuple[int, ...] = (24, 48, 64, 96)  # channels of the four convolutions of either half
    dim: int = 128  # D
    n_mels: int = 40  # M, as in stage 1's default features

    def __post_init__(self) -> None:
        self.channels = tuple(self.channels)
        if min(self.dim, self.n_mels) < 1:
            raise ValueError("sync_net.dim and sync_net.n_mels must be at least 1")
        if len(self.channels) != 4 or min(self.channels) < 8 or any(c % 8 for c in self.channels):
            raise ValueError(
                f"sync_net.channels is {self.channels}; it must be four numbers divisible by 8, one per convolution"
            )

    @property
    def features(self) -> FeatureConfig:
        """Log-mel windows of 0.2 s, centred on a video frame."""
        return FeatureConfig(kind="logmel", n_mels=self.n_mels, context_ms=40 * WINDOW)


class LipSyncNet(nn.Module):
    """mouths [N, 5, S, S], sounds [N, 20, M] -> two unit vectors [N, D] each; about 0.4 million parameters."""

    kind = "lip_sync"

    def __init__(self, config: SyncConfig | None = None):
        super().__init__()
        self.sizes = config or SyncConfig()
        channels, dim = self.sizes.channels, self.sizes.dim
        self.lip_body = _body(WINDOW, channels, first_stride=(2, 2), kernel=5)
        self.sound_body = _body(1, channels, first_stride=(1, 2), kernel=3)
        lip_width = channels[-1] * (SIDE // 16) ** 2
        sound_width = channels[-1] * 3 * -(-self.sizes.n_mels // 16)  # 20 rows become 20, 10, 5, 3
        self.lip_head = nn.Sequential(nn.Flatten(), nn.Linear(lip_width, dim))
        self.sound_head = nn.Sequential(nn.Flatten(), nn.Linear(sound_width, dim))

    @property
    def config(self) -> dict[str, Any]:
        """The config stored in the weight file to rebuild the network."""
        return asdict(self.sizes)

    def lips(self, mouths_N5SS: Tensor) -> Tensor:
        return F.normalize(self.lip_head(self.lip_body(mouths_N5SS)), dim=1)

    def sounds(self, features_NKM: Tensor) -> Tensor:
        return F.normalize(self.sound_head(self.sound_body(features_NKM[:, None])), dim=1)


def _body(
    inputs: int, channels: tuple[int, ...], first_stride: tuple[int, int], kernel: int
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, width in enumerate(channels):
        stride, size = (first_stride, kernel) if index == 0 else ((2, 2), 3)
        before = inputs if index == 0 else channels[index - 1]
        layers += [nn.Conv2d(before, width, size, stride, size // 2), nn.GroupNorm(8, width), nn.SiLU()]
    return nn.Sequential(*layers)


def mouth_windows(mouths_TSS: np.ndarray) -> np.ndarray:
    """Grey mouths uint8 (T, S, S) of one clip -> float32 (W, 5, S, S), W = T - 4.

    x = (m - mean over the clip of m) / std: removes the mouth's mean appearance and the lighting, and keeps the motion.
    """
    if mouths_TSS.dtype != np.uint8 or mouths_TSS.ndim != 3 or len(mouths_TSS) < WINDOW:
        raise ValueError(
            f"expected uint8 mouths (T, {SIDE}, {SIDE}) of at least {WINDOW} frames, got "
            f"{mouths_TSS.dtype} {mouths_TSS.shape}"
        )
    x = mouths_TSS.astype(np.float32)
    x -= x.mean(axis=0)
    x /= max(float(x.std()), 1.0)  # below one grey level there is only noise, no motion
    return np.lib.stride_tricks.sliding_window_view(x, WINDOW, axis=0).transpose(0, 3, 1, 2)


def sound_windows(waveform: Waveform, frames: int, config: SyncConfig) -> np.ndarray:
    """Log-mel of the same windows: float32 (W, 20, M), each band normalised over the clip."""
    features = extract_features(waveform, config.features, frames).values
    return features[WINDOW // 2 : frames - WINDOW // 2]


@torch.inference_mode()
def embed_clip(
    net: LipSyncNet, mouths_TSS: np.ndarray, waveform: Waveform, batch: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Video and sound embeddings float32 (W, D) of one clip."""
    return embed_lips(net, mouths_TSS, batch), embed_sound(net, waveform, len(mouths_TSS), batch)


@torch.inference_mode()
def embed_lips(net: LipSyncNet, mouths_TSS: np.ndarray, batch: int = 64) -> np.ndarray:
    """Video embeddings float32 (W, D) of one clip."""
    return _embed(net, net.lips, mouth_windows(mouths_TSS), batch)


@torch.inference_mode()
def embed_sound(net: LipSyncNet, waveform: Waveform, frames: int, batch: int = 64) -> np.ndarray:
    """Sound embeddings float32 (W, D) of one clip of T = frames."""
    return _embed(net, net.sounds, sound_windows(waveform, frames, net.sizes), batch)


def _embed(net: LipSyncNet, half: Callable[[Tensor], Tensor], windows: np.ndarray, batch: int) -> np.ndarray:
    device = next(net.parameters()).device
    starts = range(0, len(windows), batch)
    parts = [half(torch.from_numpy(windows[i : i + batch].copy()).to(device)).cpu().numpy() for i in starts]
    return np.concatenate(parts)


@dataclass(frozen=True)
class SyncFigures:
    """The sync measures of one clip."""

    offset: int | None  # in frames; positive: the video is late; None: one side is constant
    confidence: float  # LSE-C: median minus minimum of the distances over offsets
    distance: float  # LSE-D: minimum of the distances over offsets


def offset_distances(
    video_WD: np.ndarray, sound_WD: np.ndarray, most: int = OFFSETS, padded: bool = False
) -> dict[int, float]:
    """Offset k in -most .. most -> d(k) = mean over t of |video[t + k] - sound[t]|.

    The mean is over the windows that overlap, at least half of the clip. padded: over all windows of the video, with
    zeros in place of the sound before and after the clip, as in the public SyncNet script.
    """
    video, sound = (np.asarray(x, dtype=np.float64) for x in (video_WD, sound_WD))
    if video.ndim != 2 or video.shape != sound.shape or not len(video):
        raise ValueError(f"expected two embeddings (W, D) of one shape, got {video.shape} and {sound.shape}")
    n = len(video)
    if padded:
        beyond = np.pad(sound, ((most, most), (0, 0)))  # beyond[t + most] is sound[t]
        ranges = {k: (video, beyond[most - k : most - k + n]) for k in range(-most, most + 1)}
    else:
        most = min(most, n // 2)
        ranges = {
            k: (video[max(k, 0) : n + min(k, 0)], sound[max(-k, 0) : n - max(k, 0)])
            for k in range(-most, most + 1)
        }
    return {k: float(np.linalg.norm(a - b, axis=1).mean()) for k, (a, b) in ranges.items()}


def sync_figures(
    video_WD: np.ndarray, sound_WD: np.ndarray, most: int = OFFSETS, padded: bool = False
) -> SyncFigures:
    """distance = min_k d(k), confidence = median_k d(k) - min_k d(k), offset = argmin_k d(k)   (LSE-D, LSE-C).

    Distance and confidence do not change under a constant delay, so they must be read together with the offset. A
    frozen video and silence have offset None and confidence 0.
    """
    distances = offset_distances(video_WD, sound_WD, most, padded)
    offset = min(distances, key=lambda k: (round(distances[k], 9), abs(k)))
    least = distances[offset]
    if min(float(np.asarray(side).std(axis=0).max()) for side in (video_WD, sound_WD)) < CONSTANT:
        return SyncFigures(None, 0.0, least)
    return SyncFigures(offset, float(np.median(list(distances.values()))) - least, least)


def contrastive_loss(lips_CWD: Tensor, sounds_CWD: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE in both directions among the windows of each clip (van den Oord et al. 2018):

    L = -1/2 mean_t [log softmax_s(scale v_t . a_s)_t + log softmax_s(scale a_t . v_s)_t]

    Windows of other clips are not used as negatives, because the network could then distinguish speakers instead of
    measuring synchrony.
    """
    logits_CWW = scale * lips_CWD @ sounds_CWD.transpose(1, 2)
    target_CW = torch.arange(logits_CWW.shape[1], device=logits_CWW.device).expand(len(logits_CWW), -1)
    return (
        F.cross_entropy(logits_CWW, target_CW) + F.cross_entropy(logits_CWW.transpose(1, 2), target_CW)
    ) / 2


def config_of(stored: Mapping[str, Any]) -> SyncConfig:
    """The sizes in a weight file; raises TypeError or ValueError for other content."""
    return SyncConfig(**{**stored, "channels": tuple(stored["channels"])})
