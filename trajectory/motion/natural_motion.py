"""Motion of the head and the eyelids that suits a speech: a random process, fitted on tracks of real speakers.

    pose_a(t) = sum_k sigma_ak y_ak(t) + c_a act(t)
    y_ak = critically damped filter of corner frequency f_k, of noise n_ak(t) (q + (1 - q) act(t)) / r

act in [0, 1] is the speech's activity: the head moves more while it speaks, less (share q) in silence, and returns to
rest. The noise of the axes is correlated. c_a couples the axes of the plane of symmetry (pitch, y, scale) to the speech.
Blinks are a renewal process: after a refractory period they come at a constant rate, which is larger in pauses.

Shapes: T frames at 25 fps, P = 6 axes of the pose, K corner frequencies.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from audio.timing import FPS
from audio.waveform import Waveform
from stylegan2.weights import WeightsError, atomic_path
from trajectory.motion.tracks import POSE_AXES, MotionTrack

ASSET = Path(__file__).parents[1] / "assets" / "natural_motion.json"
WARM_UP = 10 * FPS  # frames before the first, in which the process reaches its stationary state
QUIET_DB = -60.0  # dB of full scale; a speech whose loud frames are below has no activity
RANGE_DB = 30.0  # dB below the loud frames at which activity is 0
ACTIVITY_SIGMA = 4.0  # frames, of the Gaussian that smooths activity over phonemes
PAUSE = 0.3  # activity below which a frame belongs to a pause
SHORTEST, LONGEST = 0.16, 0.4  # seconds of a blink from the lids' first movement to the last


@dataclass(frozen=True)
class BlinkModel:
    """When the eyes blink and for how long; seconds, and blinks per second."""

    refractory: float  # between the beginnings of two blinks at least
    rate_speech: float  # after the refractory period, during speech
    rate_pause: float  # after the refractory period, in pauses
    duration: float  # median, from the lids' first movement to the last
    log_spread: float  # standard deviation of the duration's logarithm
    closing: float  # share of the duration in which the lids close

    def __post_init__(self) -> None:
        values = asdict(self)
        if min(values.values()) < 0 or 0 in (self.duration, self.closing) or self.closing >= 1:
            raise ValueError(f"a blink model needs positive numbers and closing below 1, got {values}")


@dataclass(frozen=True)
class NaturalMotion:
    """The fitted process. Raises ValueError for arrays of other shapes, and for a silence outside [0, 1]."""

    corners: tuple[float, ...]  # Hz, (K,)
    amplitude: np.ndarray  # (P, K) standard deviations in the units of MotionTrack.pose, where noise is r
    correlation: np.ndarray  # (P, P) of the axes' noise
    coupling: np.ndarray  # (P,) change of the pose from activity 0 to 1
    silence: float  # q: noise in silence as a share of that at activity 1
    level: float  # r: root mean square of q + (1 - q) act over the tracks of the fit
    blink: BlinkModel

    def __post_init__(self) -> None:
        axes = len(POSE_AXES)
        shapes = self.amplitude.shape, self.correlation.shape, self.coupling.shape
        if shapes != ((axes, len(self.corners)), (axes, axes), (axes,)):
            raise ValueError(f"the arrays of a motion model have other shapes than its {axes} axes: {shapes}")
        if not 0 <= self.silence <= 1 or self.level <= 0:
            raise ValueError(f"silence is {self.silence} and level {self.level}; expected [0, 1] and above 0")

    def draw(self, speech: Waveform, frames: int, seed: int) -> MotionTrack:
        """Motion for a speech; the same seed and speech give the same track."""
        activity = speech_activity(speech, frames)
        pose = self.sway(activity, seed) + self.coupling * activity[:, None]
        lids = self._blinks(activity, np.random.default_rng([seed, 1]))
        return MotionTrack(pose.astype(np.float32), lids.astype(np.float32))

    def sway(self, activity_T: np.ndarray, seed: int) -> np.ndarray:
        """The random part of the pose, (T, P). It begins in the stationary state of the first frame's activity."""
        rng, activity_T = np.random.default_rng([seed, 0]), np.pad(activity_T, (WARM_UP, 0), mode="edge")
        noise_TKP = rng.standard_normal((len(activity_T), len(self.corners), len(POSE_AXES)))
        noise_TKP = noise_TKP @ np.linalg.cholesky(self.correlation).T
        noise_TKP *= ((self.silence + (1 - self.silence) * activity_T) / self.level)[:, None, None]
        parts = [damped(noise_TKP[:, k], corner) for k, corner in enumerate(self.corners)]
        return np.einsum("ktp,pk->tp", np.stack(parts), self.amplitude)[WARM_UP:]

    def _blinks(self, activity_T: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Closure of the lids, (T,) in [0, 1]; no blink begins before the first refractory period has passed."""
        model, frames = self.blink, len(activity_T)
        chance, offset = rng.random((frames, 2)).T
        spread = rng.standard_normal(frames)
        rate = np.where(activity_T < PAUSE, model.rate_pause, model.rate_speech)
        starts = chance < 1 - np.exp(-rate / FPS)
        times_T, lids_T, last = np.arange(frames) / FPS, np.zeros(frames), 0.0
        for frame in np.flatnonzero(starts):
            start = (frame + offset[frame]) / FPS
            if start - last < model.refractory:
                continue
            last = start
            duration = np.clip(model.duration * np.exp(model.log_spread * spread[frame]), SHORTEST, LONGEST)
            lids_T = np.maximum(lids_T, blink_curve(times_T - start, float(duration), model.closing))
        return lids_T

    def save(self, path: str | Path, made_from: dict) -> None:
        """Writes a JSON file. made_from: what the model was fitted on, for readers of the file."""
        values = asdict(self) | {name: np.round(getattr(self, name), 5).tolist() for name in ARRAYS}
        content = {"kind": KIND, "axes": POSE_AXES, **values, "made_from": made_from}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


KIND, ARRAYS = "natural-motion", ("amplitude", "correlation", "coupling")


def load_natural_motion(path: str | Path = ASSET) -> NaturalMotion:
    """The model in a JSON file of `NaturalMotion.save`; WeightsError for any other file."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content.pop("kind") != KIND or tuple(content.pop("axes")) != POSE_AXES:
            raise ValueError("another kind of file")
        del content["made_from"]
        arrays = {name: np.array(content.pop(name), dtype=np.float64) for name in ARRAYS}
        blink, corners = BlinkModel(**content.pop("blink")), tuple(content.pop("corners"))
        return NaturalMotion(corners=corners, blink=blink, **arrays, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is no model of natural motion ({error}); make it again.") from error


def damped(noise_T: np.ndarray, corner: float) -> np.ndarray:
    """White noise (T, ...) through a critically damped low-pass filter of second order: (T, ...) of unit variance.

    y_t = 2 rho y_{t-1} - rho^2 y_{t-2} + g n_t with rho = exp(-2 pi corner / FPS). corner: Hz.
    """
    from scipy.signal import lfilter

    rho = np.exp(-2 * np.pi * corner / FPS)
    # The variance of the filter's output for unit noise, sum of (m + 1)^2 rho^2m over m = 0, 1, ...
    variance = (1 + rho**2) / (1 - rho**2) ** 3
    return np.asarray(lfilter([1 / np.sqrt(variance)], [1, -2 * rho, rho**2], noise_T, axis=0))


def speech_activity(speech: Waveform, frames: int) -> np.ndarray:
    """(T,) in [0, 1] for each video frame: 1 as loud as the speech's loud frames, 0 at least 30 dB below; smoothed."""
    from scipy.ndimage import gaussian_filter1d

    samples = np.zeros(frames * speech.rate // FPS)
    used = speech.samples[: len(samples)]
    samples[: len(used)] = used
    level = 10 * np.log10(np.square(samples).reshape(frames, -1).mean(1) + 1e-10)
    loud = np.percentile(level, 95)
    if loud < QUIET_DB:
        return np.zeros(frames)
    active = np.clip(1 + (level - loud) / RANGE_DB, 0, 1)
    return gaussian_filter1d(active, ACTIVITY_SIGMA, mode="nearest")


def blink_curve(times: np.ndarray, duration: float, closing: float) -> np.ndarray:
    """Closure of the lids at times (...) in seconds after a blink's start: a raised cosine closes them within the share
    `closing` of the duration, a longer one opens them; 0 outside [0, duration]."""
    shut = closing * duration
    phase = np.where(times < shut, times / shut - 1, (times - shut) / (duration - shut))
    return np.where(np.abs(phase) < 1, 0.5 + 0.5 * np.cos(np.pi * np.clip(phase, -1, 1)), 0.0)
