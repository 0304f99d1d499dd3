"""Fits the process of trajectory/motion/natural_motion.py to tracks of real speakers.

The typical periodogram of an axis in windows of T frames, without their mean, is a sum of those of the K filters and of
the landmarks' jitter, which is left out of the model:

    S_a(f) = sum_k sigma_ak^2 S_k(f) + sum_j sigma_aj^2 S_j(f),   sigma >= 0 by least squares of relative errors

Lateral axes (yaw, roll, x) are symmetric: noise correlates only among them or among the others, and only the others are
coupled to speech. What remains is one speaker's habit. Shapes: N windows, T frames, P axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audio.timing import FPS
from trajectory.motion.natural_motion import BlinkModel, NaturalMotion, damped
from trajectory.motion.tracks import JITTER_SIGMA, POSE_AXES

CORNERS = (0.15, 0.4, 1.0)  # Hz; windows of 3 s say nothing about slower motion
# Jitter: noise of 2.5 Hz and white noise (None). Yaw and pitch contain much at 2.5 Hz, but x and y, which a turning head
# moves too and which landmarks show best, contain almost none.
JITTER = (2.5, None)
SAGITTAL = np.array([axis in ("pitch", "y", "scale") for axis in POSE_AXES])
STEADY = (POSE_AXES.index("x"), POSE_AXES.index("y"))
ACTIVE, SILENT = 0.6, 0.2  # limits of the activity in speech and in silence
# Not fitted: the speakers of laboratory recordings blink as the prompts ask for it. Together with the refractory period
# these rates give 16 blinks a minute in speech and 24 in pauses.
REFRACTORY, RATE_SPEECH, RATE_PAUSE = 1.0, 0.35, 0.67
# A blink is lowest among so many frames on each side, and below this share of the median openness.
BESIDE, LOWEST = 5, 0.62


@dataclass(frozen=True)
class Observed:
    """Windows of tracks. poses: (N, T, P) with jitter; activities: (N, T); openness: (N, T) eye aspect ratio."""

    poses: np.ndarray
    activities: np.ndarray
    openness: np.ndarray


def fit_motion(observed: Observed) -> tuple[NaturalMotion, np.ndarray]:
    """The model, and the standard deviations of the landmarks' jitter, (P, 2) for JITTER.

    Raises ValueError for windows of fewer than 2 s, or with fewer than 10 blinks, no speech or no silence.
    """
    from scipy.ndimage import gaussian_filter1d

    poses, activity = observed.poses, observed.activities
    frames = poses.shape[1]
    if frames < 2 * FPS:
        raise ValueError(f"windows of {frames} frames are too short to fit a motion: {2 * FPS} are needed")
    centred, act = poses - poses.mean(1, keepdims=True), activity - activity.mean(1, keepdims=True)
    coupling = np.where(SAGITTAL, np.einsum("ntp,nt->p", centred, act) / np.square(act).sum(), 0)
    residual = centred - act[..., None] * coupling
    variances = np.stack([axis_variances(residual[..., p]) for p in range(len(POSE_AXES))])
    smooth = gaussian_filter1d(residual, JITTER_SIGMA, axis=1).reshape(-1, len(POSE_AXES))
    correlation = np.where(SAGITTAL[:, None] == SAGITTAL, np.corrcoef(smooth.T), 0)
    amplitude, blink = np.sqrt(variances[:, : len(CORNERS)]), fit_blinks(observed.openness)

    def with_silence(share: float) -> NaturalMotion:
        level = round(float(np.sqrt(np.square(share + (1 - share) * activity).mean())), 4)
        return NaturalMotion(CORNERS, amplitude, correlation, coupling, share, level, blink)

    # The filters carry motion from speech into silence: choose the share whose simulated tracks move as observed.
    shares = np.linspace(0, 1, 6)
    simulated = [np.stack([with_silence(q).sway(a, seed) for seed, a in enumerate(activity)]) for q in shares]
    moved = [silence_speed(tracks, activity, np.zeros(len(POSE_AXES))) for tracks in simulated]
    observed_speed = silence_speed(residual, activity, variances[:, -1])
    share = round(float(np.interp(observed_speed, moved, shares)), 3)
    return with_silence(share), np.sqrt(variances[:, len(CORNERS) :])


def axis_variances(curves_NT: np.ndarray) -> np.ndarray:
    """sigma^2 of one axis for CORNERS and then for JITTER."""
    from scipy.optimize import nnls

    frames = curves_NT.shape[1]
    # The mean is ruled by a few windows in which the speaker moves a lot. For noise it is the median / ln 2.
    measured = np.median(periodogram(curves_NT), axis=0) / np.log(2)
    parts = np.stack([expected_periodogram(corner, frames) for corner in (*CORNERS, *JITTER)], axis=1)
    return nnls(parts / measured[:, None], np.ones(len(measured)))[0]


def jitter_like(jitter_PJ: np.ndarray, count: int, frames: int) -> np.ndarray:
    """Random jitter of these standard deviations, (count, T, P)."""
    noise = np.random.default_rng(0).standard_normal((len(JITTER), frames + 4 * FPS, count, len(jitter_PJ)))
    parts = [noise[j] if corner is None else damped(noise[j], corner) for j, corner in enumerate(JITTER)]
    jitter = sum(part[4 * FPS :] * jitter_PJ[:, j] for j, part in enumerate(parts))
    return np.moveaxis(np.asarray(jitter), 1, 0)


def periodogram(curves_NT: np.ndarray) -> np.ndarray:
    """|DFT|^2 / T of curves without their mean, at the frequencies above 0: (N, T) -> (N, T // 2)."""
    centred = curves_NT - curves_NT.mean(1, keepdims=True)
    return np.square(np.abs(np.fft.rfft(centred, axis=1)))[:, 1:] / curves_NT.shape[1]


def expected_periodogram(corner: float | None, frames: int) -> np.ndarray:
    """The expectation of `periodogram` for `damped` noise of unit variance, (T // 2,); corner None: white noise."""
    from scipy.linalg import toeplitz

    impulse = np.zeros(frames + 60 * FPS)
    impulse[0] = 1
    response = impulse if corner is None else damped(impulse, corner)
    covariance = toeplitz([response[: len(response) - lag] @ response[lag:] for lag in range(frames)])
    centring = np.eye(frames) - 1 / frames
    transform = np.fft.rfft(centring, axis=0)[1:]
    return np.real(np.einsum("fs,st,ft->f", transform, covariance, transform.conj())) / frames


def silence_speed(poses_NTP: np.ndarray, activity_NT: np.ndarray, jitter_P: np.ndarray) -> float:
    """The head's speed in silence as a share of that in speech, in [0, 1]. jitter_P: variance of white jitter, whose
    part is removed. Measured on x and y, where jitter is smallest in comparison with motion.
    """
    from scipy.ndimage import gaussian_filter1d

    edge = int(3 * JITTER_SIGMA)
    speed = np.diff(gaussian_filter1d(poses_NTP, JITTER_SIGMA, axis=1), axis=1)[:, edge:-edge]
    impulse = np.zeros(8 * edge + 1)
    impulse[4 * edge] = 1
    kernel = np.diff(gaussian_filter1d(impulse, JITTER_SIGMA))
    power = np.square(speed) - jitter_P * np.square(kernel).sum()
    active = activity_NT[:, edge : edge + speed.shape[1]]
    if not (active > ACTIVE).any() or not (active < SILENT).any():
        raise ValueError("the tracks must contain both speech and silence")
    ratio = power[active < SILENT].mean(0) / power[active > ACTIVE].mean(0)
    return float(np.sqrt(np.clip(ratio[list(STEADY)], 0, 1)).mean())


def fit_blinks(openness_NT: np.ndarray) -> BlinkModel:
    """The duration and shape of blinks; their rates are not fitted."""
    falls, rises = blink_halves(openness_NT)
    if len(falls) < 10:
        raise ValueError(f"the tracks contain {len(falls)} blinks; at least 10 are needed")
    # The width of a raised cosine at half its height is half its length.
    durations = 2 * (falls + rises)
    low, median, high = np.percentile(durations, (25, 50, 75))
    return BlinkModel(
        refractory=REFRACTORY,
        rate_speech=RATE_SPEECH,
        rate_pause=RATE_PAUSE,
        duration=round(float(median), 3),
        log_spread=round(float(np.log(high / low) / 1.349), 3),  # quartiles of a normal distribution
        closing=round(float(falls.mean() / (falls + rises).mean()), 3),
    )


def blink_halves(openness_NT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds from half closed to the lowest openness, and from there to half open again, of each blink.

    A blink is the lowest of 11 frames, below 0.62 times the window's median. Half is half way between its openness and
    the median of the frames around it, because the lids also follow the gaze.
    """
    falls, rises = [], []
    for curve in openness_NT / np.median(openness_NT, axis=1, keepdims=True):
        for low in range(BESIDE, len(curve) - BESIDE):
            if curve[low] > LOWEST or curve[low] > curve[low - BESIDE : low + BESIDE + 1].min():
                continue
            before, after = curve[max(0, low - 2 * BESIDE) : low - BESIDE + 1], curve[low + BESIDE :]
            base = np.median(np.concatenate([before, after[: BESIDE + 1]]))
            half = (base + curve[low]) / 2
            left, right = np.flatnonzero(curve[:low] >= half), np.flatnonzero(curve[low:] >= half) + low
            if len(left) and len(right):
                a, b = left[-1], right[0]
                falls.append(low - a - (curve[a] - half) / (curve[a] - curve[a + 1]))
                rises.append(b - low - (curve[b] - half) / (curve[b] - curve[b - 1]))
    return np.array(falls) / FPS, np.array(rises) / FPS
