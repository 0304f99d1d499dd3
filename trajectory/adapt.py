"""Stage 1 adapted to one person: the speech and the face of a few seconds, after which it speaks for them (ours).

    c_t = (1 - a) net(x)_t + a (S x_t + b)

net: the base model after some steps on the clip. S: ridge regression from a frame's own window to the coefficients
(encoders.ridge), whose penalty is chosen by the lips of left-out stretches. a = config.shortcut. What the base learnt
from a synthetic voice hardly helps with a real one, and seconds of speech teach a network less than they teach a
straight line: the regression has the larger share, and the net adds what is not linear.

`adapt` is given the first frames of a clip only. The last `validation` of these choose the number of steps and measure
before and after; then the same steps are made on all of them. Shapes: U frames, J feature rows, K rows of a window,
M bins, L rows of W+, D = 512, C coefficients.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audio.features import extract_features
from audio.timing import FPS, samples_of_frames
from audio.waveform import Waveform
from encoders.clips import FrameClip
from encoders.geometry import aperture
from encoders.ridge import cross_validated
from stylegan2.weights import read_weights
from trajectory.augment import AugmentConfig, augment
from trajectory.calibrate import Calibration, agreement, gain_of
from trajectory.dataset import rows_of, windows_of
from trajectory.displacement import TrajectoryError
from trajectory.lips import fit_lip_axis
from trajectory.losses import LossConfig, stage1_losses
from trajectory.models import TrajectoryNet
from trajectory.predict import TrajectoryPredictor, load_trajectory, save_trajectory

LEAST_SECONDS = 2.0  # of speech with a face


@dataclass
class AdaptConfig:
    """enabled: whether stage 1 is adapted. steps, every: at most so many steps, looked at every so many; the net is used
    after at least `every` of them. train: patterns (fnmatch) of the net's parameters that may change.

    lr, weight_decay, batch, length (frames of a window), lip (weight of trajectory.lips' loss beside L_latent),
    augment: of these steps. shortcut: a, the share of the regression; 0 = none, 1 = nothing else (and no steps).
    validation: share of the frames held out. calibration: "components", because seconds of speech leave r small, and
    one gain of 1 / r for all would mostly stretch errors.
    """

    enabled: bool = False
    steps: int = 100
    every: int = 25
    train: list[str] = field(default_factory=lambda: ["recurrent.*", "decoder.*"])
    lr: float = 1e-3
    weight_decay: float = 1e-2
    batch: int = 16
    length: int = 32
    lip: float = 3.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    shortcut: float = 0.75
    validation: float = 0.2
    calibration: Calibration = "components"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.every, self.batch) < 1 or self.length < 2:
            raise ValueError("adapt.steps, every and batch must be at least 1 and adapt.length at least 2")
        if self.lr <= 0 or min(self.weight_decay, self.lip) < 0:
            raise ValueError("adapt: need lr > 0, weight_decay >= 0 and lip >= 0")
        if not 0 <= self.shortcut <= 1:
            raise ValueError(f"adapt.shortcut is {self.shortcut}; it must lie between 0 and 1")
        if not 0 < self.validation < 1:
            raise ValueError(f"adapt.validation is {self.validation}; it must lie between 0 and 1")


@dataclass(frozen=True)
class OwnSpeech:
    """What a person said and how their face moved meanwhile, in the frames that may be learnt from.

    sound: of these U frames. w (U, L, D) float32: their codes; w_ref (L, D): the identity latent. opening (U,): the
    lips' aperture; known (U,) bool: where landmarks were found.
    """

    sound: Waveform
    w: np.ndarray
    w_ref: np.ndarray
    opening: np.ndarray
    known: np.ndarray

    def until(self, frames: int) -> OwnSpeech:
        """The first so many frames."""
        cut = {name: getattr(self, name)[:frames] for name in ("w", "opening", "known")}
        return replace(self, sound=Waveform(self.sound.samples[: samples_of_frames(frames)]), **cut)


@dataclass(frozen=True)
class Adapted:
    """predictor: in eval mode. before, after: `lips` (correlation of the lips' opening) and `latent` (distance in W) on
    the held-out frames, of the base and of the same recipe without those frames. steps: how many were made."""

    predictor: TrajectoryPredictor
    before: dict[str, float]
    after: dict[str, float]
    steps: int
    config: AdaptConfig


def own_speech(clip: FrameClip, w_TLD: np.ndarray, used: int, w_ref_LD: np.ndarray) -> OwnSpeech:
    """The first `used` frames of a clip. Whatever comes later is scored: none of it is kept, the sound included."""
    return OwnSpeech(
        sound=Waveform(np.asarray(clip.waveform)[: samples_of_frames(used)]),
        w=np.asarray(w_TLD[:used], np.float32),
        w_ref=np.asarray(w_ref_LD, np.float32),
        opening=aperture(np.asarray(clip.landmarks)[:used]),
        known=np.asarray(clip.detected, bool)[:used],
    )


def enough_speech(own: OwnSpeech) -> None:
    """Raises TrajectoryError for less than LEAST_SECONDS of frames with a face."""
    if (known := int(own.known.sum())) < LEAST_SECONDS * FPS:
        raise TrajectoryError(
            f"{known} frames ({known / FPS:.1f} s) of speech with a face are too few to adapt stage 1 to, it needs "
            f"{LEAST_SECONDS * FPS:.0f}: give a longer clip, raise target.share, or set adapt=none."
        )


def adapt(base: TrajectoryPredictor, own: OwnSpeech, config: AdaptConfig) -> Adapted:
    """A model that speaks like this person, on the base's device; the base is left as it is.

    Raises TrajectoryError if `enough_speech` does.
    """
    enough_speech(own)
    with torch.random.fork_rng():  # dropout's numbers are this function's own business
        return _adapt(base, own, config)


def _adapt(base: TrajectoryPredictor, own: OwnSpeech, config: AdaptConfig) -> Adapted:
    cut = len(own.w) - round(config.validation * len(own.w))
    whole, part = _Lesson(base, own), _Lesson(base, own.until(cut))
    steps, held_out = _choose(base, part, whole, cut, config)
    true_VC = whole.c[cut:]
    predictor = _mixture(base, whole, config, steps)
    report = agreement([(held_out, true_VC)], base.space)
    predictor.gain.copy_(gain_of(report, config.calibration))
    before_VC = _predicted(base, whole)[cut:]
    first = agreement([(before_VC, true_VC)], base.space)
    return Adapted(
        predictor.eval().requires_grad_(False),
        {"lips": part.lips(before_VC, true_VC), "latent": first.latent},
        {"lips": part.lips(held_out, true_VC), "latent": report.latent},
        steps,
        config,
    )


def save_adapted(
    path: str | Path, adapted: Adapted, base_hash: str, notes: Mapping[str, Any] | None = None
) -> None:
    """A trajectory file that says which base it comes from. base_hash: stylegan2.weights.file_hash of that file."""
    record = {
        "adapted_from": base_hash,
        "before": adapted.before,
        "after": adapted.after,
        "steps": adapted.steps,
        "adapt": asdict(adapted.config),
    }
    save_trajectory(adapted.predictor, path, record | dict(notes or {}))


def load_adapted(path: str | Path, base_hash: str, device: str | torch.device = "cpu") -> TrajectoryPredictor:
    """Raises WeightsError or TrajectoryError, also for a file that was adapted from another base."""
    found = read_weights(path).notes.get("adapted_from")
    if found != base_hash:
        told = f"was adapted from the stage-1 model {str(found)[:12]}" if found else "is no adapted stage 1"
        raise TrajectoryError(
            f"{path} {told}; {base_hash[:12]} is in use: name the one it was made with (stage1.weights=), or adapt "
            "again with scripts/train_stage2.py adapt=personal."
        )
    return load_trajectory(path, device)


# ---------------------------------------------------------------------------------------------------- two experts


class _Lesson:
    """A person's speech as a model sees it: x (U, K, M), rows (J, M), d (U, L, D), c (U, C), axis (C,)."""

    def __init__(self, base: TrajectoryPredictor, own: OwnSpeech) -> None:
        features = extract_features(own.sound, base.features, len(own.w))
        self.x, self.rows = features.values, rows_of(features, base.features)
        self.w_ref = torch.from_numpy(own.w_ref)[None].to(base.gain.device)
        self.d = torch.from_numpy(own.w).to(base.gain.device) - self.w_ref
        self.c = base.space.encode(self.d).double().cpu().numpy()
        self.axis = fit_lip_axis([(self.c[own.known], own.opening[own.known])])

    def lips(self, predicted_TC: np.ndarray, true_TC: np.ndarray) -> float:
        """Correlation of the lips' opening as the coefficients tell it; 0 where it does not change."""
        p, t = (c_TC @ self.axis - (c_TC @ self.axis).mean() for c_TC in (predicted_TC, true_TC))
        return float(p @ t / max(np.sqrt((p @ p) * (t @ t)), 1e-9))


def _choose(
    base: TrajectoryPredictor, part: _Lesson, whole: _Lesson, cut: int, config: AdaptConfig
) -> tuple[int, np.ndarray]:
    """Steps after which the mixture, taught without the held-out frames, follows their lips best; its prediction."""
    best: tuple[float, int, np.ndarray] | None = None
    shortcut_VC = _regression(part, config)(_flat(whole.x[cut:])) if config.shortcut else 0.0
    for step, net in _steps(base, part, config, config.steps if config.shortcut < 1 else 0):
        if config.shortcut < 1 and (step == 0 or (step % config.every and step != config.steps)):
            continue
        net_VC = _predicted(base, whole, net)[cut:]
        mixed_VC = (1 - config.shortcut) * net_VC + config.shortcut * shortcut_VC
        score = part.lips(mixed_VC, whole.c[cut:])
        if best is None or score > best[0]:
            best = score, step, mixed_VC
    assert best is not None
    return best[1], best[2]


def _mixture(
    base: TrajectoryPredictor, lesson: _Lesson, config: AdaptConfig, steps: int
) -> TrajectoryPredictor:
    *_, (_, net) = _steps(base, lesson, config, steps)
    model = TrajectoryPredictor(
        copy.deepcopy(net), copy.deepcopy(base.space), base.features, config.shortcut > 0
    ).to(base.gain.device)
    last: Any = model.net.decoder[-1]
    with torch.no_grad():
        last.weight.mul_(1 - config.shortcut)
        last.bias.mul_(1 - config.shortcut)
        if model.shortcut is not None:
            fitted = _regression(lesson, config)
            model.shortcut.weight.copy_(torch.from_numpy(config.shortcut * fitted.weights.T))
            model.shortcut.bias.copy_(
                torch.from_numpy(config.shortcut * (fitted.bias - fitted.mean @ fitted.weights))
            )
    return model


def _steps(
    base: TrajectoryPredictor, lesson: _Lesson, config: AdaptConfig, steps: int
) -> Iterator[tuple[int, TrajectoryNet]]:
    """(step, net) for 0 .. steps: a copy of the base's net that goes on learning, from this person alone."""
    net = copy.deepcopy(base.net).requires_grad_(False)
    trained = [p for name, p in net.named_parameters() if any(fnmatchcase(name, g) for g in config.train)]
    if not trained:
        raise TrajectoryError(f"No parameter of stage 1 matches adapt.train={config.train}.")
    for parameter in trained:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    rng = np.random.default_rng(config.seed)
    losses = LossConfig(lip=config.lip)
    identity, axis = base.space.identity(lesson.w_ref), torch.from_numpy(lesson.axis).to(lesson.d)
    yield 0, net
    torch.manual_seed(config.seed)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        values, d = _windows(lesson, base, config, rng)
        net.train()
        for part in (
            net.frontend,
            net.recurrent,
            net.decoder,
        ):  # what is frozen keeps its running statistics too
            part.train(any(p.requires_grad for p in part.parameters()))
        c_NTC, _ = net(values, identity.expand(len(values), -1))
        everywhere = torch.ones_like(d[..., 0, 0], dtype=torch.bool)
        terms = stage1_losses(c_NTC, d, everywhere, base.space, losses, axis)
        loss = losses.latent * terms["latent"] + losses.lip * terms.get("lip", 0.0)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        yield step + 1, net


def _windows(
    lesson: _Lesson, base: TrajectoryPredictor, config: AdaptConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Windows of the clip in another voice and room: values (N, T, K, M), d (N, T, L, D)."""
    length, step = min(config.length, len(lesson.x)), base.features.rows_per_frame
    starts = rng.integers(0, len(lesson.x) - length + 1, config.batch)
    span = (length - 1) * step + base.features.rows
    rows_NJM = np.stack([lesson.rows[t * step : t * step + span] for t in starts])
    values = windows_of(augment(rows_NJM, config.augment, base.features, rng), base.features)
    d_NTLD = torch.stack([lesson.d[t : t + length] for t in starts.tolist()])
    return torch.from_numpy(values).to(d_NTLD.device), d_NTLD


def _regression(lesson: _Lesson, config: AdaptConfig) -> Any:
    """S: its penalty is the one under which the lips of left-out stretches are read best."""
    return cross_validated(_flat(lesson.x), lesson.c, lesson.axis.astype(np.float64))[0]


@torch.no_grad()
def _predicted(base: TrajectoryPredictor, lesson: _Lesson, net: TrajectoryNet | None = None) -> np.ndarray:
    """Coefficients (U, C) of a whole lesson."""
    net = base.net if net is None else net
    net.eval()
    values_NTKM = torch.from_numpy(lesson.x)[None].to(lesson.d.device)
    return net(values_NTKM, base.space.identity(lesson.w_ref))[0][0].double().cpu().numpy()


def _flat(x_TKM: np.ndarray) -> np.ndarray:
    return x_TKM.reshape(len(x_TKM), -1).astype(np.float64)
