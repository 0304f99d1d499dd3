"""Control baselines: reference predictions for interpreting the method's figures.

Shapes: T frames, L rows of W+, D latent width. A displacement is d = w - w_ref, (T, L, D), or (T, K) in any basis.

| row | prediction | its figures show |
|---|---|---|
| ground_truth | the true frames | the noise of detectors and networks |
| inversion | the true latents, rendered | the best result that encoder and generator allow |
| pti_truth | the same latents through the tuned generator (split tuned only) | the best result that the tuned generator
allows | | static | the true identity frame, repeated | the result of a frozen face | | mean_trajectory | mean
displacement of the training clips at each time | the result of the average motion, without any speech input | | energy
| ridge regression from log energy to displacements | the result of loudness without phonetic content | | wrong_audio |
the trained model on the speech of another clip | the result of natural motion that does not match the speech | |
shift_5 | the model's prediction five frames (200 ms) late | whether a measure is sensitive to synchrony (it must be
worse) | | ridge | ridge regression from log-mel to the person's aperture (metrics.scoring.ridge_baseline) | the result
of a linear model (mouth_corr only, since it renders no frames) | | stage1_base | stage 1 without adaptation to the
person (adapt=personal only) | the result of the speaker-independent model | | stage1_only, full | the method, without
and with the tuned generator | the result of the method | | reencoded | stage1_only through H.264 once more
(metrics.reencode only) | how far a measure depends on coding |
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from audio.silence import frame_rms
from audio.timing import SAMPLES_PER_FRAME

CONTROLS = (
    *("ground_truth", "inversion", "pti_truth", "static"),
    *("mean_trajectory", "energy", "wrong_audio", "shift_5"),
)
ROWS = (
    *CONTROLS,
    "ridge",
    "stage1_base",
    "stage1_only",
    "full",
    "reencoded",
)  # in the order of the table; so are SPLITS
SPLITS = ("seen", "unseen", "tuned")
PERCEPTUAL_ROWS = ("static", "inversion", "pti_truth", "stage1_only", "full")
SHIFT = 5  # delay of shift_5 in frames


def static_frames(frame: np.ndarray, num_frames: int) -> Iterator[np.ndarray]:
    """The static row: the true identity frame (H, W, 3), num_frames times."""
    return (frame for _ in range(num_frames))


def mean_displacement(displacements: Iterable[np.ndarray]) -> np.ndarray:
    """Mean displacement over C training clips at each frame index t, as long as the longest clip.

    m_t = 1/C sum_c d_c[min(t, T_c - 1)]: a clip that has ended contributes its last value, so that the mean does not jump
    where a clip ends. displacements: C arrays (T_c, ...), of which one is held at a time.
    """
    total, ended, count = np.zeros(0), np.zeros(0), 0  # ended: sum of ended clips' last values
    for count, d in enumerate(map(np.asarray, displacements), 1):
        if not len(d):
            raise ValueError("the mean displacement needs a frame in each clip")
        if count == 1:
            total, ended = np.zeros((0, *d.shape[1:])), np.zeros(d.shape[1:])
        longer = np.broadcast_to(ended, (max(len(d) - len(total), 0), *d.shape[1:]))
        total = np.concatenate([total, longer])
        total += mean_trajectory(d, 0, len(total))
        ended = ended + d[-1]
    if not count:
        raise ValueError("the mean displacement needs at least one clip")
    return (total / count).astype(np.float32)


def mean_trajectory(mean_displacement_T: np.ndarray, start: int, num_frames: int) -> np.ndarray:
    """The frames start .. start + num_frames - 1 of a displacement curve (T, ...); its last value is repeated beyond its
    end. The caller adds w_ref. start: the clip's first scored frame, so that the mean of the same time is compared.
    """
    last = len(mean_displacement_T) - 1
    return np.asarray(mean_displacement_T)[np.minimum(np.arange(start, start + num_frames), last)]


def delayed(trajectory_T: np.ndarray, frames: int = SHIFT) -> np.ndarray:
    """The shift_5 row: the trajectory (T, ...) delayed by `frames`, with its first value held until then."""
    return trajectory_T[np.maximum(np.arange(len(trajectory_T)) - frames, 0)]


def wrong_audio(sentences: Sequence[str]) -> list[int]:
    """For each clip the index of the clip whose speech drives it: a cyclic shift by at least one clip.

    The chosen shift is the first one that gives the fewest clips their own sentence, because the same sentence by
    another speaker would not be wrong audio. sentences: one per clip of a split. ValueError for fewer than two clips.
    """
    n = len(sentences)
    if n < 2:
        raise ValueError(f"wrong_audio needs at least two clips in a split, got {n}: leave the row out")
    same = [sum(sentences[i] == sentences[(i + shift) % n] for i in range(n)) for shift in range(1, n)]
    shift = 1 + int(np.argmin(same))
    return [(i + shift) % n for i in range(n)]


def wrong_samples(samples: np.ndarray, start: int, num_frames: int) -> np.ndarray:
    """The sound of frames start .. start + num_frames - 1 of the other clip, (S,), for the row wrong_audio.

    The frame numbers are those of the scored frames, so that the sentences of a corpus with a fixed rhythm stay in step.
    If the other clip ends earlier, its last num_frames are used, or all of it if it has fewer.
    """
    first = max(0, min(start, len(samples) // SAMPLES_PER_FRAME - num_frames)) * SAMPLES_PER_FRAME
    return samples[first : first + num_frames * SAMPLES_PER_FRAME]


def log_energy(samples: np.ndarray, num_frames: int, floor: float = 1e-4) -> np.ndarray:
    """e_t = log(floor + RMS of the 640 samples of video frame t), (T,). samples: 16 kHz in [-1, 1], padded with silence."""
    return np.log(floor + frame_rms(samples, num_frames))


@dataclass(frozen=True)
class EnergyRidge:
    """The energy row: linear map from log energy in a window of 2 context + 1 frames to displacements.

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

    energies: (T_c,) per clip; targets: displacements (T_c, ...) per clip, one held at a time; alpha: of the standardised
    energy; context: frames on either side.
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
        product = (x - x_mean).T @ y  # equals the product with centred Y, because X is centred
        cross, y_sum = (product, y.sum(axis=0)) if n == 0 else (cross + product, y_sum + y.sum(axis=0))
    weights = np.linalg.solve(gram, cross)
    return EnergyRidge(weights, y_sum / len(every) - x_mean @ weights, mean, std, context, shape)


def _windows(curve_T: np.ndarray, context: int) -> np.ndarray:
    """(T,) -> (T, 2 context + 1), the edge values repeated."""
    padded = np.pad(np.asarray(curve_T, dtype=np.float64), context, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * context + 1)
