"""Stage 1 adapted to one person: the speech and the face of a few seconds, after which it speaks for them (ours).

    o_t = (1 - a) <l, net(x)_t> + a (<s, x_t> + b)        c_t = m + g v (o_t - mean o)

o: the lips' opening as coefficients tell it (l, trajectory.losses.lip_loss). net: the base model after some steps on the clip.
s: ridge regression from a frame's own window (encoders.ridge_regression), its penalty chosen on left-out stretches. v: how this
person's coefficients move when their lips open; m: their mean; g: a gain (`lip_gain`).

Why so little: what the base learnt from a synthetic voice hardly helps with a real one, and seconds of speech teach a
network less than they teach a straight line, so the regression has the larger share a and the net adds what is not
linear. And they cannot tell 32 coefficients apart: what is wrong in 31 of them moves the head and shuts the lips.

`adapt` is given the first frames of a clip only. The last `validation` of these choose the number of steps and measure
before and after; then the same steps are made on all of them. Shapes: U frames, J feature rows, K rows of a window,
M bins, L rows of W+, D = 512, C coefficients.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from encoders.geometry import correlation
from stylegan2.weights import read_weights
from trajectory.adapt.adaptation_data import Lesson, OwnSpeech, enough_speech, flat
from trajectory.data.augmentation import AugmentConfig, augment
from trajectory.data.windows import windows_of
from trajectory.losses.stage1_losses import LossConfig, stage1_losses
from trajectory.model.displacement import TrajectoryError
from trajectory.model.predictor import TrajectoryPredictor, load_trajectory, save_trajectory
from trajectory.model.recurrent_net import TrajectoryNet
from trajectory.training.amplitude_calibration import LARGEST_GAIN, agreement


@dataclass
class AdaptConfig:
    """enabled: whether stage 1 is adapted. steps, every: at most so many steps, looked at every so many; the net is used
    after at least `every` of them. train: patterns (fnmatch) of the net's parameters that may change.

    lr, weight_decay, batch, length (frames of a window), lip (weight of trajectory.losses.lip_loss' loss beside L_latent),
    augment: of these steps. shortcut: a, the share of the regression; 0 = none, 1 = nothing else (and no steps).
    validation: share of the frames held out. calibration: "lips" stretches the motion by one gain (`lip_gain`).
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
    calibration: Literal["none", "lips"] = "lips"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.every, self.batch) < 1 or self.length < 2:
            raise ValueError("adapt.steps, every and batch must be at least 1 and adapt.length at least 2")
        if self.lr <= 0 or min(self.weight_decay, self.lip) < 0:
            raise ValueError("adapt: need lr > 0, weight_decay >= 0 and lip >= 0")
        if not 0 <= self.shortcut <= 1:
            raise ValueError(f"adapt.shortcut is {self.shortcut}; it must lie between 0 and 1")
        if self.calibration not in ("none", "lips"):
            raise ValueError(f"adapt.calibration is {self.calibration!r}; it must be 'none' or 'lips'")
        if not 0 < self.validation <= 0.5:
            raise ValueError(f"adapt.validation is {self.validation}; it must lie above 0 and not above 0.5")


@dataclass(frozen=True)
class Adapted:
    """predictor: in eval mode. before, after: `lips` (correlation of the lips' opening) and `latent` (distance in W) on
    the held-out frames, of the base and of the same recipe without those frames. steps: how many were made."""

    predictor: TrajectoryPredictor
    before: dict[str, float]
    after: dict[str, float]
    steps: int
    config: AdaptConfig


def adapt(base: TrajectoryPredictor, own: OwnSpeech, config: AdaptConfig) -> Adapted:
    """A model that speaks like this person, on the base's device; the base is left as it is.

    Raises TrajectoryError if `enough_speech` does, and for a base that was adapted before.
    """
    if base.shortcut is not None:
        raise TrajectoryError(
            "This stage 1 was adapted to somebody already: give the one that it was made from."
        )
    enough_speech(own)
    with torch.random.fork_rng():  # dropout's numbers are this function's own business
        return _adapt(base, own, config)


def _adapt(base: TrajectoryPredictor, own: OwnSpeech, config: AdaptConfig) -> Adapted:
    known = np.flatnonzero(own.known)  # of these, not of all frames: a face may be found late
    cut = int(known[-max(1, round(config.validation * len(known)))])
    whole, part = Lesson(base, own), Lesson(base, own.until(cut))
    steps, held_out_V = _choose(base, part, whole, cut, config)
    seen_V = whole.known[cut:]
    true_VC, held_out_V = whole.c[cut:][seen_V], held_out_V[seen_V]
    gain = 1.0 if config.calibration == "none" else lip_gain(held_out_V, true_VC @ part.axis)
    predictor = _mixture(base, whole, config, steps, gain)
    spoken_UC = base.gain.double().cpu().numpy() * _predicted(base, whole)
    before = _measures(spoken_UC[cut:][seen_V], part, true_VC, base)
    after = _measures(part.moved(held_out_V, gain), part, true_VC, base) | {"gain": gain}
    return Adapted(predictor.eval().requires_grad_(False), before, after, steps, config)


def _measures(
    predicted_VC: np.ndarray, lesson: Lesson, true_VC: np.ndarray, base: TrajectoryPredictor
) -> dict[str, float]:
    latent = agreement([(predicted_VC, true_VC)], base.space).latent
    return {"lips": correlation(predicted_VC @ lesson.axis, true_VC @ lesson.axis), "latent": latent}


def lip_gain(predicted_V: np.ndarray, true_V: np.ndarray) -> float:
    """1 + r^2 (std(o) / std(o^) - 1) of the lips' opening on held-out frames, within [1, LARGEST_GAIN].

    The formula of trajectory.training.amplitude_calibration's "components", but one number: a second or two cannot tell 32 of them. With the
    small r that seconds of speech leave, 1 / r (its "scalar") would mostly stretch errors.
    """
    r2 = max(correlation(predicted_V, true_V), 0.0) ** 2
    ratio = float(true_V.std() / max(predicted_V.std(), 1e-9))
    return float(np.clip(1 + r2 * (ratio - 1), 1.0, LARGEST_GAIN))


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


def _choose(
    base: TrajectoryPredictor, part: Lesson, whole: Lesson, cut: int, config: AdaptConfig
) -> tuple[int, np.ndarray]:
    """Steps after which o, taught without the held-out frames, follows them best; and o of those frames (V,)."""
    a, best, known_V = config.shortcut, (-math.inf, 0, np.zeros(0)), whole.known[cut:]
    linear_V = part.regression().predict(flat(whole.x[cut:])) if a else 0.0
    for step, net in _steps(base, part, config, config.steps if a < 1 else 0):
        if a < 1 and (step == 0 or (step % config.every and step != config.steps)):
            continue
        o_V = (1 - a) * (_predicted(base, whole, net)[cut:] @ part.axis) + a * linear_V
        score = correlation(o_V[known_V], (whole.c[cut:] @ part.axis)[known_V])
        if score > best[0]:
            best = score, step, o_V
    return best[1], best[2]


@torch.no_grad()
def _mixture(
    base: TrajectoryPredictor, lesson: Lesson, config: AdaptConfig, steps: int, gain: float
) -> TrajectoryPredictor:
    """All of it in the base's own shape: the net's last layer and the shortcut are multiplied out."""
    with torch.enable_grad():
        *_, (_, net) = _steps(base, lesson, config, steps)
    model = TrajectoryPredictor(net, copy.deepcopy(base.space), base.features, config.shortcut > 0)
    last: Any = net.decoder[-1]
    a = config.shortcut
    v_C, l_C = (torch.from_numpy(x).to(last.weight) for x in (gain * lesson.direction, lesson.axis))
    last.weight.copy_((1 - a) * torch.outer(v_C, l_C @ last.weight))
    constant = (1 - a) * (l_C @ last.bias) - lesson.opening
    last.bias.copy_(torch.from_numpy(lesson.mean).to(v_C) + v_C * constant)
    if model.shortcut is not None:
        fitted = lesson.regression()
        s_X = torch.from_numpy(fitted.coef_).to(v_C)
        model.shortcut.weight.copy_(a * torch.outer(v_C, s_X))
        model.shortcut.bias.copy_(a * float(fitted.intercept_) * v_C)
    return model.to(base.gain.device)


def _steps(
    base: TrajectoryPredictor, lesson: Lesson, config: AdaptConfig, steps: int
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
        values, d, known = _windows(lesson, base, config, rng)
        net.train()
        for part in (net.frontend, net.recurrent, net.decoder):  # frozen: running statistics too
            part.train(any(p.requires_grad for p in part.parameters()))
        c_NTC, _ = net(values, identity.expand(len(values), -1))
        terms = stage1_losses(c_NTC, d, known, base.space, losses, axis)
        loss = losses.latent * terms["latent"] + losses.lip * terms.get("lip", 0.0)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        yield step + 1, net


def _windows(
    lesson: Lesson, base: TrajectoryPredictor, config: AdaptConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of the clip in another voice and room: values (N, T, K, M), d (N, T, L, D), and where a face was found
    (N, T)."""
    length, step = min(config.length, len(lesson.x)), base.features.rows_per_frame
    places = [t for t in range(len(lesson.x) - length + 1) if lesson.known[t : t + length].any()]
    starts = np.array(places)[rng.integers(0, len(places), config.batch)]
    span = (length - 1) * step + base.features.rows
    rows_NJM = np.stack([lesson.rows[t * step : t * step + span] for t in starts])
    values = windows_of(augment(rows_NJM, config.augment, base.features, rng), base.features)
    d_NTLD = torch.stack([lesson.d[t : t + length] for t in starts.tolist()])
    known_NT = torch.from_numpy(np.stack([lesson.known[t : t + length] for t in starts])).to(d_NTLD.device)
    return torch.from_numpy(values).to(d_NTLD.device), d_NTLD, known_NT


@torch.no_grad()
def _predicted(base: TrajectoryPredictor, lesson: Lesson, net: TrajectoryNet | None = None) -> np.ndarray:
    """Coefficients (U, C) of a whole lesson."""
    net = base.net if net is None else net
    net.eval()
    values_NTKM = torch.from_numpy(lesson.x)[None].to(lesson.d.device)
    return net(values_NTKM, base.space.identity(lesson.w_ref))[0][0].double().cpu().numpy()
