"""Windows of speech features, latents and the identity latent for stage 1, read from files when they are needed.

Shapes: N clips in a batch, T video frames, K feature rows in a frame's window, J rows of a whole clip, M bins,
L rows of W+, D = 512.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from audio.features import AudioFeatures, FeatureConfig
from stylegan2.weights import atomic_path
from trajectory.data.augmentation import AugmentConfig, augment
from trajectory.model.displacement import TrajectoryError


@dataclass(frozen=True)
class TrajectoryClip:
    """One clip on disk: latents is its LatentClip file, features the file that `store_features` wrote.

    split: train, val, seen or unseen; num_frames: T. frames: its FrameClip file, for losses on the camera's frames.
    tempo: of a changed copy of the sound (audio.sound_copies); its frame t shows the recording at source_frame(t).
    It contains only paths and numbers, so that thousands of clips fit in memory.
    """

    name: str
    speaker: str
    split: str
    num_frames: int
    latents: Path
    features: Path
    frames: Path | None = None
    tempo: float = 1.0

    def source_frame(self, t: np.ndarray | int) -> np.ndarray:
        """The position of frame t in the recording, in frames; a frame's time is its centre."""
        return (np.asarray(t) + 0.5) * self.tempo - 0.5


Place = tuple[TrajectoryClip, int]  # a clip and the first frame of a window in it


@dataclass(frozen=True)
class WindowBatch:
    """Training windows, float32 numpy.

    values: (N, T, K, M) feature windows. d: (N, T, L, D) displacements w_t - w_ref. w_ref: (N, L, D).
    mask: (N, T) bool, false where a window that reaches beyond its clip is padded with zeros.
    places: for each window, its clip and its first frame in the clip.
    """

    values: np.ndarray
    d: np.ndarray
    w_ref: np.ndarray
    mask: np.ndarray
    places: tuple[Place, ...]


def store_features(
    features: AudioFeatures, config: FeatureConfig, path: str | Path, tempo: float = 1.0
) -> None:
    """Writes a clip's feature rows as float16, each once; the overlapping windows are cut when the file is read."""
    with atomic_path(path) as temporary:
        rows = rows_of(features, config).astype(np.float16)
        save_file({"rows": rows}, temporary, {"tempo": repr(tempo)})


def stored_tempo(path: str | Path, config: FeatureConfig) -> tuple[float, int]:
    """The tempo of a file of `store_features` and its number of frames."""
    with safe_open(path, framework="np") as file:
        rows = file.get_slice("rows").get_shape()[0]
        return float(file.metadata()["tempo"]), (rows - config.rows) // config.rows_per_frame + 1


def rows_of(features: AudioFeatures, config: FeatureConfig) -> np.ndarray:
    """The clip's feature rows (J, M), each once; `windows_of` is the inverse."""
    values, step = features.values, config.rows_per_frame
    return np.concatenate([values[:-1, :step].reshape(-1, values.shape[2]), values[-1]])


def windows_of(rows_NJM: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Rows (N, J, M) -> windows (N, T, K, M): frame t gets rows r t .. r t + K - 1, r rows per frame."""
    sliding_NXMK = np.lib.stride_tricks.sliding_window_view(rows_NJM, config.rows, axis=1)
    return np.ascontiguousarray(sliding_NXMK[:, :: config.rows_per_frame].transpose(0, 1, 3, 2), np.float32)


@contextlib.contextmanager
def _reading(clip: TrajectoryClip) -> Iterator[None]:
    """Turns errors of reading into a TrajectoryError that names the clip."""
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise TrajectoryError(
            f"cannot read clip {clip.name} ({error}); delete its cache and prepare it again"
        ) from error


def read_window(
    clip: TrajectoryClip, config: FeatureConfig, start: int, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads frames [start, start + length) of one clip: feature rows (J, M), w (T, L, D), w_ref (L, D).

    TrajectoryError for a damaged file, or features of another audio config.
    """
    step = config.rows_per_frame
    stop = min(start + length, clip.num_frames)
    with _reading(clip):
        with safe_open(clip.features, framework="np") as file:
            rows = file.get_slice("rows")[start * step : stop * step + config.rows - step]
        with safe_open(clip.latents, framework="np") as file:
            codes, w_ref = file.get_slice("w"), file.get_tensor("w_ref")
            too_short = clip.source_frame(stop - 1) > codes.get_shape()[0]
            w = _codes(codes, clip.source_frame(np.arange(start, stop)))
    expected = ((stop - start) * step + config.rows - step, config.width)
    if rows.shape != expected or too_short:
        raise TrajectoryError(
            f"{clip.features} holds {rows.shape} feature rows, expected {expected}; "
            "it was made with another audio config: delete it and run prepare again"
        )
    return rows.astype(np.float32), w, w_ref.astype(np.float32)


def _codes(w: Any, position_T: np.ndarray) -> np.ndarray:
    """`between_frames` of a slice of a safetensors file, of which only the frames around the positions are read."""
    frames = w.get_shape()[0]
    position_T = np.clip(position_T, 0, frames - 1)
    first = int(position_T[0])
    part = w[first : min(int(position_T[-1]) + 2, frames)].astype(np.float32)
    return between_frames(part, position_T - first)


def between_frames(w_TLD: np.ndarray, position_N: np.ndarray) -> np.ndarray:
    """Codes (N, L, D) at positions in frames, rising or not, interpolated linearly; beyond the last frame its own."""
    position_N = np.minimum(position_N, len(w_TLD) - 1)
    before_N = position_N.astype(int)
    share_N = (position_N - before_N).astype(np.float32)[:, None, None]
    if not share_N.any():
        return w_TLD[before_N]
    after_N = np.minimum(before_N + 1, len(w_TLD) - 1)
    return (1 - share_N) * w_TLD[before_N] + share_N * w_TLD[after_N]


def read_clip(clip: TrajectoryClip, config: FeatureConfig) -> WindowBatch:
    """A whole clip as a batch of one window."""
    rows, w, w_ref = read_window(clip, config, 0, clip.num_frames)
    mask = np.ones((1, clip.num_frames), bool)
    return WindowBatch(windows_of(rows[None], config), (w - w_ref)[None], w_ref[None], mask, ((clip, 0),))


def offsets_of(clips: Sequence[TrajectoryClip], max_samples: int) -> np.ndarray:
    """Displacements (N, L, D) at up to max_samples frames, evenly spaced over all clips, to fit the offset basis on."""
    total = sum(clip.num_frames for clip in clips)
    chosen = np.unique(np.linspace(0, total - 1, min(total, max_samples)).round().astype(int))
    offsets, first = [], 0
    for clip in clips:
        inside = chosen[(chosen >= first) & (chosen < first + clip.num_frames)] - first
        first += clip.num_frames
        if len(inside):
            with _reading(clip), safe_open(clip.latents, framework="np") as file:
                w = file.get_tensor("w")[inside].astype(np.float32)
                offsets.append(w - file.get_tensor("w_ref").astype(np.float32))
    return np.concatenate(offsets)


class WindowSampler:
    """An endless iterator over random windows of the training split. Batch number `step` depends on (seed, step) alone.

    The step is therefore the only state, and a resumed run gets the same batches as an uninterrupted one. Clips are
    drawn in proportion to their frames; windows have `length` frames, fewer where the clip is shorter. With several
    processes (`world`), each reads its own `batch` windows of the batch that a single process would draw with
    world x batch windows.
    """

    def __init__(
        self,
        clips: Sequence[TrajectoryClip],
        features: FeatureConfig,
        augmentation: AugmentConfig,
        batch: int = 16,
        length: int = 32,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not clips:
            raise TrajectoryError("no clip is in the training split: prepare more clips or change the split")
        self.clips = list(clips)
        self.features, self.augmentation = features, augmentation
        self.batch, self.length, self.seed, self.step = batch, length, seed, 0
        self.rank, self.world = rank, world
        frames = np.array([clip.num_frames for clip in clips], np.float64)
        self.share = frames / frames.sum()

    def __iter__(self) -> WindowSampler:
        return self

    def __next__(self) -> WindowBatch:
        # Draw the clips and first frames of all processes' windows.
        rng = np.random.default_rng([self.seed, 0, self.step])
        self.step += 1
        drawn = [self.clips[i] for i in rng.choice(len(self.clips), self.batch * self.world, p=self.share)]
        starts = [int(rng.integers(0, max(clip.num_frames - self.length, 0) + 1)) for clip in drawn]
        longest = max(min(clip.num_frames, self.length) for clip in drawn)

        # Read this process's windows, padded with zeros to the longest of all.
        own_part = slice(self.rank * self.batch, (self.rank + 1) * self.batch)
        places = tuple(zip(drawn, starts, strict=True))[own_part]
        parts = [read_window(clip, self.features, start, self.length) for clip, start in places]
        frames = np.array([len(w) for _, w, _ in parts])
        step = self.features.rows_per_frame
        own_rows = np.stack([_pad(rows, (longest - len(w)) * step) for rows, w, _ in parts])
        d = np.stack([_pad(w - w_ref, longest - len(w)) for _, w, w_ref in parts])

        # Augment a batch of all processes' windows, so that each window gets the same random numbers as in a single
        # process.
        rows = np.zeros((len(drawn), *own_rows.shape[1:]), np.float32)
        rows[own_part] = own_rows
        rows = augment(rows, self.augmentation, self.features, rng)[own_part]

        mask = np.arange(longest)[None] < frames[:, None]
        w_ref = np.stack([w_ref for *_, w_ref in parts])
        return WindowBatch(windows_of(rows, self.features), d, w_ref, mask, places)

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seed, self.step = state["seed"], state["step"]


def split_of(clips: Sequence[TrajectoryClip], split: str) -> list[TrajectoryClip]:
    """The clips of one split."""
    return [clip for clip in clips if clip.split == split]


def _pad(x: np.ndarray, count: int) -> np.ndarray:
    """`count` zeros after the last entry of the first axis."""
    return np.pad(x, ((0, count), *((0, 0),) * (x.ndim - 1)))
