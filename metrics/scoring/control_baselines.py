"""Control rows: predictions that a talking head must beat, made from plain arrays.

Shapes: T frames, L rows of W+, D latent width; K coefficients of any displacement basis. A displacement is
d = w - w_ref. The functions on displacements work on (T, L, D) and on (T, K) alike.

| row | what it shows |
|---|---|
| ground_truth | the judge's own noise: the true frames, judged like any other |
| inversion | what encoder and generator can do at best: the true latents, rendered |
| pti_truth | what the tuned generator can do at best: the same latents through it (tuned split only) |
| static | the true identity frame, repeated: what a frozen face scores |
| mean_trajectory | the training set's mean displacement at each time: what knowing the grammar's rhythm scores |
| energy | ridge regression from log energy alone: what loudness scores, without any phonetics |
| wrong_audio | the trained model on another clip's speech: what fluent but unrelated motion scores |
| shift_5 | the model's own prediction, five frames (200 ms) late: whether the measures see synchrony |
| ridge | ridge regression of the person's own lips on the log-mel window (metrics.scoring.ridge_baseline): one curve, no frames |
| stage1_base | stage 1 as it was before it was adapted to the person; only where it was |
| stage1_only, full | the method (stage 1 adapted, where it was), without and with the tuned generator |
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from audio.timing import SAMPLES_PER_FRAME

CONTROLS = (
    "ground_truth",
    "inversion",
    "pti_truth",
    "static",
    "mean_trajectory",
    "energy",
    "wrong_audio",
    "shift_5",
)
REFERENCES = ("ground_truth", "inversion", "static")  # what FID and lip_gain of any row are measured against
ROWS = (
    *CONTROLS,
    "ridge",
    "stage1_base",
    "stage1_only",
    "full",
)
PERCEPTUAL_ROWS = ("static", "inversion", "pti_truth", "stage1_only", "full")
SPLITS = ("seen", "unseen", "tuned")  # in the order of a table
SHIFT = 5  # frames


def static_frames(frame: np.ndarray, num_frames: int) -> Iterator[np.ndarray]:
    """The static row: the true identity frame (H, W, 3), num_frames times."""
    return (frame for _ in range(num_frames))


def static(w_ref_LD: np.ndarray, num_frames: int) -> np.ndarray:
    """The inverted identity frame, repeated: (T, L, D). Not the static row (which shows the true frame)."""
    return np.repeat(w_ref_LD[None], num_frames, axis=0)


def mean_displacement(displacements: Iterable[np.ndarray]) -> np.ndarray:
    """Mean over the training clips of the displacement at each time index, as long as the longest clip.

    m_t = 1/C sum_c d_c[min(t, T_c - 1)]: a clip that has ended counts with its last value, so that every index is
    a mean over all clips and the curve does not jump where a clip ends. displacements: C arrays (T_c, ...).
    """
    total, ended, count = np.zeros(0), np.zeros(0), 0  # ended: the sum of the last values
    for count, d in enumerate(map(np.asarray, displacements), 1):
        if not len(d):
            raise ValueError("the mean displacement needs a frame in each clip")
        if count == 1:
            total, ended = np.zeros((0, *d.shape[1:])), np.zeros(d.shape[1:])
        longer = np.broadcast_to(ended, (max(len(d) - len(total), 0), *d.shape[1:]))
        total = np.concatenate([total, longer])
        total += _held(d, len(total))
        ended = ended + d[-1]
    if not count:
        raise ValueError("the mean displacement needs at least one clip")
    return (total / count).astype(np.float32)


def mean_trajectory(mean_displacement_T: np.ndarray, num_frames: int) -> np.ndarray:
    """The mean displacement cut to num_frames, or extended by its last value; the caller adds w_ref."""
    return _held(mean_displacement_T, num_frames)


def delayed(trajectory_T: np.ndarray, frames: int = SHIFT) -> np.ndarray:
    """The shift_5 row: the trajectory `frames` frames late, held at its first value until then; (T, ...)."""
    return trajectory_T[np.maximum(np.arange(len(trajectory_T)) - frames, 0)]


def wrong_audio(sentences: Sequence[str]) -> list[int]:
    """For each clip of one split, the clip whose speech it gets: a cyclic permutation without fixed points.

    Of the cyclic shifts the first is taken that gives the fewest clips their own sentence (spoken by somebody else,
    it would be the right audio). sentences: one per clip. ValueError for fewer than two clips.
    """
    n = len(sentences)
    if n < 2:
        raise ValueError(f"wrong_audio needs at least two clips in a split, got {n}: leave the row out")
    same = [sum(sentences[i] == sentences[(i + shift) % n] for i in range(n)) for shift in range(1, n)]
    shift = 1 + int(np.argmin(same))
    return [(i + shift) % n for i in range(n)]


def log_energy(samples: np.ndarray, num_frames: int, floor: float = 1e-4) -> np.ndarray:
    """e_t = log(floor + RMS of the 640 samples of video frame t), (T,); silence beyond the end. 16 kHz, [-1, 1]."""
    length = num_frames * SAMPLES_PER_FRAME
    padded = np.zeros(length)
    padded[: min(length, len(samples))] = samples[:length]
    return np.log(floor + np.sqrt((padded.reshape(num_frames, SAMPLES_PER_FRAME) ** 2).mean(axis=1)))


@dataclass(frozen=True)
class EnergyRidge:
    """Linear map from log energy in a window of 2 context + 1 frames to displacements; the energy row.

    weights (2 context + 1, P): for P = product of shape; mean, std: of log energy; bias (P,).
    """

    weights: np.ndarray
    bias: np.ndarray
    mean: float
    std: float
    context: int
    shape: tuple[int, ...]

    def __call__(self, energy_T: np.ndarray) -> np.ndarray:
        """log energy (T,) -> displacement (T, *shape)."""
        x = _windows((energy_T - self.mean) / self.std, self.context)
        return (x @ self.weights + self.bias).reshape(-1, *self.shape).astype(np.float32)


def fit_energy(
    energies: Sequence[np.ndarray], targets: Iterable[np.ndarray], alpha: float = 1.0, context: int = 3
) -> EnergyRidge:
    """Ridge regression W = (X'X + alpha I)^-1 X'Y on centred X and Y, over all frames of the training clips.

    energies: (T_c,) per clip; targets: displacements (T_c, ...) per clip, of which one is held at a time; context:
    frames on either side.
    """
    if not energies:
        raise ValueError("the energy regression needs at least one clip")
    every = np.concatenate(energies)
    mean, std = float(every.mean()), float(every.std()) or 1.0
    curves = [_windows((e - mean) / std, context) for e in energies]
    x_mean = np.concatenate(curves).mean(axis=0)
    gram, shape = alpha * np.eye(len(x_mean)), ()
    cross, y_sum = np.zeros(0), np.zeros(0)
    for n, (x, target) in enumerate(zip(curves, targets, strict=True)):
        if len(x) != len(target):
            raise ValueError(f"energy covers {len(x)} frames of clip {n}, the target {len(target)}")
        shape, y = target.shape[1:], np.asarray(target, dtype=np.float64).reshape(len(x), -1)
        gram += (x - x_mean).T @ (x - x_mean)
        product = (x - x_mean).T @ y  # centred X alone makes it that of centred Y
        cross, y_sum = (product, y.sum(axis=0)) if n == 0 else (cross + product, y_sum + y.sum(axis=0))
    weights = np.linalg.solve(gram, cross)
    return EnergyRidge(weights, y_sum / len(every) - x_mean @ weights, mean, std, context, shape)


def _windows(curve_T: np.ndarray, context: int) -> np.ndarray:
    """(T,) -> (T, 2 context + 1), the edges held."""
    padded = np.pad(np.asarray(curve_T, dtype=np.float64), context, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * context + 1)


def _held(curve_T: np.ndarray, num_frames: int) -> np.ndarray:
    return np.asarray(curve_T)[np.minimum(np.arange(num_frames), len(curve_T) - 1)]
