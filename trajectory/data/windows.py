"""Windows of (speech, latents, identity latent) for stage 1, streamed from files.

Shapes: N clips in a batch, T video frames, K feature rows in a frame's window, J rows of a whole clip, M bins,
L rows of W+, D = 512.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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

    split: train, val, seen or unseen; num_frames: T. frames: its FrameClip file, for losses on real frames or sound.
    Only paths and numbers, so thousands of clips fit in memory.
    """

    name: str
    speaker: str
    split: str
    num_frames: int
    latents: Path
    features: Path
    frames: Path | None = None


Place = tuple[TrajectoryClip, int]  # a clip and the first frame of a window in it


@dataclass(frozen=True)
class Batch:
    """Training windows, float32 numpy.

    values: (N, T, K, M) feature windows. d: (N, T, L, D) displacements w_t - w_ref. w_ref: (N, L, D).
    mask: (N, T) bool, false where a window that reaches beyond its clip is padded with zeros.
    places: of each window, its clip and its first frame in it. fresh: (N,) bool, where the net starts anew instead of going
    on from the window before; None: everywhere.
    """

    values: np.ndarray
    d: np.ndarray
    w_ref: np.ndarray
    mask: np.ndarray
    places: tuple[Place, ...]
    fresh: np.ndarray | None = None


def store_features(features: AudioFeatures, config: FeatureConfig, path: str | Path) -> None:
    """Writes a clip's feature rows once (float16): its windows overlap sevenfold and are cut again when read."""
    with atomic_path(path) as temporary:
        save_file({"rows": rows_of(features, config).astype(np.float16)}, temporary)


def rows_of(features: AudioFeatures, config: FeatureConfig) -> np.ndarray:
    """The clip's rows (J, M), each once: what `windows_of` cuts into windows again."""
    values, step = features.values, config.rows_per_frame
    return np.concatenate([values[:-1, :step].reshape(-1, values.shape[2]), values[-1]])


def windows_of(rows_NJM: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Rows (N, J, M) -> windows (N, T, K, M): frame t sees rows r t .. r t + K - 1, r rows per frame."""
    sliding_NXMK = np.lib.stride_tricks.sliding_window_view(rows_NJM, config.rows, axis=1)
    return np.ascontiguousarray(sliding_NXMK[:, :: config.rows_per_frame].transpose(0, 1, 3, 2), np.float32)


@contextlib.contextmanager
def _reading(clip: TrajectoryClip) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise TrajectoryError(
            f"cannot read clip {clip.name} ({error}); delete its cache and prepare it again"
        ) from error


def read_window(
    clip: TrajectoryClip, config: FeatureConfig, start: int, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames [start, start + length) of one clip, nothing else read: rows (J, M), w (T, L, D), w_ref (L, D)."""
    step = config.rows_per_frame
    stop = min(start + length, clip.num_frames)
    with _reading(clip):
        with safe_open(clip.features, framework="np") as file:
            rows = file.get_slice("rows")[start * step : stop * step + config.rows - step]
        with safe_open(clip.latents, framework="np") as file:
            w, w_ref = file.get_slice("w")[start:stop], file.get_tensor("w_ref")
    expected = ((stop - start) * step + config.rows - step, config.width)
    if rows.shape != expected or len(w) != stop - start:
        raise TrajectoryError(
            f"{clip.features} holds {rows.shape} feature rows, expected {expected}; "
            "it was made with another audio config: delete it and run prepare again"
        )
    return rows.astype(np.float32), w.astype(np.float32), w_ref.astype(np.float32)


def read_clip(clip: TrajectoryClip, config: FeatureConfig) -> Batch:
    """A whole clip as a batch of one."""
    rows, w, w_ref = read_window(clip, config, 0, clip.num_frames)
    mask = np.ones((1, clip.num_frames), bool)
    return Batch(windows_of(rows[None], config), (w - w_ref)[None], w_ref[None], mask, ((clip, 0),))


def offsets_of(clips: Sequence[TrajectoryClip], max_samples: int) -> np.ndarray:
    """Displacements (N, L, D) at up to max_samples frames, evenly spaced over all clips: what the basis is fitted on."""
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
    """Random windows of the training split. Batch number `step` is a function of (seed, step) alone.

    The step is therefore the sampler's whole state, and a resumed run sees exactly the batches it would have seen.
    Clips are drawn in proportion to their frames. A window is up to `length` frames. Of several processes (`world`),
    each reads its own `batch` windows of the world's batch, the one that a single process with world x batch would read.
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

    def __next__(self) -> Batch:
        rng = np.random.default_rng([self.seed, 0, self.step])
        self.step += 1
        drawn = [self.clips[i] for i in rng.choice(len(self.clips), self.batch * self.world, p=self.share)]
        starts = [int(rng.integers(0, max(clip.num_frames - self.length, 0) + 1)) for clip in drawn]
        places = list(zip(drawn, starts, strict=True))
        return self._read(places, lambda rows: augment(rows, self.augmentation, self.features, rng))

    @property
    def mine(self) -> slice:
        """Of the world's windows, this process's."""
        return slice(self.rank * self.batch, (self.rank + 1) * self.batch)

    def _read(self, places: Sequence[Place], vary: Callable[[np.ndarray], np.ndarray]) -> Batch:
        """This process's windows of the world's. vary: augments the rows (N, J, M) of all of them."""
        lengths = [min(clip.num_frames - start, self.length) for clip, start in places]
        own = tuple(places[self.mine])
        parts = [read_window(clip, self.features, start, self.length) for clip, start in own]
        longest = max(lengths)
        frames = lengths[self.mine]
        pad = [longest - t for t in frames]
        step = self.features.rows_per_frame
        read = np.stack([np.pad(r, ((0, p * step), (0, 0))) for (r, _, _), p in zip(parts, pad, strict=True)])
        d = np.stack(
            [np.pad(w - ref, ((0, p), (0, 0), (0, 0))) for (_, w, ref), p in zip(parts, pad, strict=True)]
        )
        rows = np.zeros(
            (len(places), *read.shape[1:]), np.float32
        )  # of the others: only their random numbers matter
        rows[self.mine] = read
        rows = vary(rows)[self.mine]
        mask = np.arange(longest)[None] < np.array(frames)[:, None]
        return Batch(windows_of(rows, self.features), d, np.stack([ref for *_, ref in parts]), mask, own)

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seed, self.step = state["seed"], state["step"]


def split_of(clips: Sequence[TrajectoryClip], split: str) -> list[TrajectoryClip]:
    """The clips of one split, with absolute paths (a run may change its working folder)."""
    return [
        replace(
            c,
            latents=Path(c.latents).resolve(),
            features=Path(c.features).resolve(),
            frames=None if c.frames is None else Path(c.frames).resolve(),
        )
        for c in clips
        if c.split == split
    ]
