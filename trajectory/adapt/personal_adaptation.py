"""Adapts stage 1 to one person, from a few seconds of their speech and face (ours, not the paper's).

    o_t = (1 - a) <l, net(x)_t> + a <s, x_t>        c_t = m + v (g (o_t - mean o) + δ)

o: the lips' opening. net: the base model, trained for some steps on the clip; l reads the opening from its coefficients
(trajectory.losses.lip_loss). s: ridge regression from a frame's own window (encoders.ridge_regression). a: the share of
the regression. v: how this person's coefficients change with their lips' opening; m: their mean. g, δ: gain and shift with
which the lips open as far in the frames of the person's generator as in the person's own (trajectory.adapt.lip_response).

A few seconds of speech are too little to train a network, and how well a base transfers to a voice differs, so the share
of the regression is chosen for each person (`AdaptationData.share`). Only the lips' opening is predicted, because errors in
the other coefficients would move the head and close the lips. Where the base is better on the held-out frames than every
candidate, it stays as it is: then a = 0, without training steps.

`adapt` gets the first frames of a clip only. The last share `validation` of these frames is held out to choose the
number of steps and to measure the model before and after; then the same number of steps is made on all frames. Shapes:
U frames, V held-out frames, J feature rows, K rows of a window, M bins, L rows of W+, D = 512, C coefficients.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.geometry import correlation
from stylegan2.weights import read_weights
from trajectory.adapt.adaptation_data import (
    AdaptationData,
    PersonalSpeech,
    flat_windows,
    require_enough_speech,
)
from trajectory.adapt.lip_response import LipResponse, RenderedOpening
from trajectory.data.augmentation import AugmentConfig, augment
from trajectory.data.windows import windows_of
from trajectory.losses.stage1_losses import LossConfig, stage1_losses, weighted_sum
from trajectory.model.displacement import TrajectoryError
from trajectory.model.predictor import TrajectoryPredictor, load_trajectory, save_trajectory
from trajectory.model.recurrent_net import TrajectoryNet

LEAST_SPREAD = 0.4  # lips that move less seem not to speak
LARGEST_RATIO = 3.0  # of the true opening's spread to the predicted one's


@dataclass
class AdaptConfig:
    """Adaptation of stage 1 to one person. The defaults are ours, for clips of 5 to 25 s."""

    enabled: bool = False  # set by configs/adapt/personal.yaml
    steps: int = 100  # gradient steps of the net, at most
    # Steps between two measurements on the held-out frames; also the smallest number of steps
    every: int = 25
    lr: float = 1e-3  # initial learning rate of AdamW; it falls to 0 along a cosine
    weight_decay: float = 1e-2  # weight decay of AdamW
    batch: int = 16  # windows per step
    length: int = 32  # frames of a window
    lip: float = 3.0  # weight of L_lip beside L_latent, as in configs/config.yaml
    augment: AugmentConfig = field(default_factory=AugmentConfig)  # augmentation of these windows
    # a, the share of the regression; 0: the net alone; 1: the regression alone, without training steps; None: chosen on
    # frames that the regression was not fitted to
    shortcut: float | None = None
    validation: float = 0.2  # share of the frames that is held out
    # Spread of the lips' opening in the rendered frames over that in the person's own, where the prediction is good enough
    # (`rendered_spread`)
    spread: float = 0.9
    seed: int = 0  # seed of windows and dropout

    def __post_init__(self) -> None:
        if min(self.steps, self.every, self.batch) < 1 or self.length < 2:
            raise ValueError("adapt.steps, every and batch must be at least 1 and adapt.length at least 2")
        if min(self.lr, self.spread) <= 0 or min(self.weight_decay, self.lip) < 0:
            raise ValueError("adapt: need lr > 0, spread > 0, weight_decay >= 0 and lip >= 0")
        if self.shortcut is not None and not 0 <= self.shortcut <= 1:
            raise ValueError(f"adapt.shortcut is {self.shortcut}; it must lie between 0 and 1")
        if not 0 < self.validation <= 0.5:
            raise ValueError(f"adapt.validation is {self.validation}; it must lie above 0 and not above 0.5")


@dataclass(frozen=True)
class Adapted:
    """predictor: the adapted model, in eval mode. steps: how many were made. before, after: `lips` (correlation of the
    lips' opening) and `latent` (distance in W) on the held-out frames, of the base and of a model adapted without these
    frames. after also has `spread` and `gain`: s and g of trajectory.adapt.lip_response, and `slope` and `offset`, β and
    ā - ō.
    """

    predictor: TrajectoryPredictor
    before: dict[str, float]
    after: dict[str, float]
    steps: int
    config: AdaptConfig


def adapt(
    base: TrajectoryPredictor,
    speech: PersonalSpeech,
    config: AdaptConfig,
    rendered_opening: RenderedOpening | None = None,
) -> Adapted:
    """A model adapted to this person, on the base's device; the base is not changed.

    rendered_opening: finds the lips' opening in frames of the generator that will render the person; None: as if they opened
    as far as the codes say.

    Raises TrajectoryError for too little speech, and for a base that was adapted before.
    """
    if base.shortcut is not None:
        raise TrajectoryError(
            "This stage 1 was already adapted to one person: give the model from which it was adapted."
        )
    require_enough_speech(speech)
    with torch.random.fork_rng():  # leaves the caller's random state unchanged
        return _adapt(base, speech, config, rendered_opening)


def rendered_spread(predicted_V: np.ndarray, true_V: np.ndarray, config: AdaptConfig) -> float:
    """s = 1.5 r, between LEAST_SPREAD and config.spread. r: correlation of the predicted with the true opening.

    The squared error 1 + s^2 - 2 s r is smallest for s = r, where lips look dull, and below that of lips that do not move as
    long as s < 2 r.
    """
    r = correlation(predicted_V, true_V)
    return float(np.clip(1.5 * r, min(LEAST_SPREAD, config.spread), config.spread))


def _adapt(
    base: TrajectoryPredictor,
    speech: PersonalSpeech,
    config: AdaptConfig,
    rendered_opening: RenderedOpening | None,
) -> Adapted:
    # The held-out part is a share of the frames with a face, which may begin late in the clip.
    known = np.flatnonzero(speech.known)
    cut = int(known[-max(1, round(config.validation * len(known)))])
    whole, part = AdaptationData(base, speech), AdaptationData(base, speech.until(cut))
    if config.shortcut is None:
        config = replace(config, shortcut=part.share(_predicted(base.net, base, part)))
    scored_V = whole.known[cut:]
    true_VC = whole.c[cut:][scored_V]

    # Choose steps on the held-out frames, and gain and shift on all frames that were not trained on; then adapt on all.
    true_U = (whole.c @ part.axis)[whole.known]
    true_V = true_VC @ part.axis
    steps, o_V = _choose_steps(base, part, whole, config)
    base_UC = _predicted(base.net, base, whole)
    o_V, base_U = o_V[scored_V], _opening(base_UC, part, whole, 0.0)[whole.known]
    base_V, amplitude = base_U[-len(true_V) :], (o_V, true_V)
    if correlation(base_V, true_V) > correlation(o_V, true_V):  # only gain and shift are the person's
        config, steps, o_V, amplitude = replace(config, shortcut=0.0), 0, base_V, (base_U, true_U)
    response = whole.response(rendered_opening, base.space) if rendered_opening else LipResponse()
    spread = rendered_spread(*amplitude, config)
    predicted_std, true_std = (float(curve.std()) for curve in amplitude)
    ratio = min(true_std / max(predicted_std, 1e-9), LARGEST_RATIO)
    gain, shift = ratio * response.gain(spread), response.shift(float(whole.opening.std()))
    predictor = _mixture(base, whole, config, steps, gain, shift)

    # Measure the base and the adaptation without the held-out frames.
    base_VC = (base.gain.double().cpu().numpy() * base_UC)[cut:][scored_V]
    before = _measures(base_VC, part, true_VC, base)
    after = _measures(part.coefficients(o_V, ratio), part, true_VC, base)
    after |= {"spread": spread, "gain": gain, "slope": response.slope, "offset": response.offset}
    return Adapted(predictor.eval().requires_grad_(False), before, after, steps, config)


def _measures(
    predicted_VC: np.ndarray, data: AdaptationData, true_VC: np.ndarray, base: TrajectoryPredictor
) -> dict[str, float]:
    distance_V = np.linalg.norm((predicted_VC - true_VC) * base.space.offset_scale.cpu().numpy(), axis=1)
    lips = correlation(predicted_VC @ data.axis, true_VC @ data.axis)
    return {"lips": lips, "latent": float(distance_V.mean())}


def save_adapted(
    path: str | Path, adapted: Adapted, base_hash: str, notes: Mapping[str, Any] | None = None
) -> None:
    """A trajectory file that names its base. base_hash: stylegan2.weights.file_hash of the base's file."""
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
    saved_hash = read_weights(path).notes.get("adapted_from")
    if saved_hash != base_hash:
        problem = "is no adapted stage 1"
        if saved_hash:
            problem = f"was adapted from the stage-1 model {str(saved_hash)[:12]}"
        raise TrajectoryError(
            f"{path} {problem}; {base_hash[:12]} is in use: give the one it was adapted from (stage1.weights=), or adapt "
            "again with scripts/train_stage2.py adapt=personal."
        )
    return load_trajectory(path, device)


# ------------------------------------------------------------------------------------------------ net and regression


def _choose_steps(
    base: TrajectoryPredictor, part: AdaptationData, whole: AdaptationData, config: AdaptConfig
) -> tuple[int, np.ndarray]:
    """Trains without the held-out frames, which follow those of `part`. Returns the number of steps whose o - mean o
    correlates best with the true opening on them, and that curve on these frames (V,)."""
    a, cut, best = _share(config), len(part.x), (-math.inf, 0, np.zeros(0))
    known_V = whole.known[cut:]
    for step, net in _steps(base, part, config, config.steps if a < 1 else 0):
        if a < 1 and (step == 0 or (step % config.every and step != config.steps)):
            continue
        o_V = _opening(_predicted(net, base, whole), part, whole, a)[cut:]
        score = correlation(o_V[known_V], (whole.c[cut:] @ part.axis)[known_V])
        if score > best[0]:
            best = score, step, o_V
    return best[1], best[2]


def _opening(net_UC: np.ndarray, part: AdaptationData, whole: AdaptationData, a: float) -> np.ndarray:
    """o - mean o (U,) on the frames of `whole`, of which the net predicts coefficients (U, C). Axis, regression and mean are
    of `part`, its first frames.
    """
    o_U = (1 - a) * (net_UC @ part.axis)
    if a:
        o_U = o_U + a * part.regression.predict(flat_windows(whole.x))
    return o_U - o_U[: len(part.x)][part.known].mean()


def _share(config: AdaptConfig) -> float:
    assert config.shortcut is not None  # chosen by `_adapt`
    return config.shortcut


@torch.no_grad()
def _mixture(
    base: TrajectoryPredictor,
    data: AdaptationData,
    config: AdaptConfig,
    steps: int,
    gain: float,
    shift: float = 0.0,
) -> TrajectoryPredictor:
    """The equation as one predictor: l, v, m, g and δ are multiplied into the net's last layer and the shortcut."""
    with torch.enable_grad():
        *_, (_, net) = _steps(base, data, config, steps)
    a = _share(config)
    last: Any = net.decoder[-1]
    model = TrajectoryPredictor(net, copy.deepcopy(base.space), base.features, a > 0)
    v_C, l_C = (torch.from_numpy(x).to(last.weight) for x in (gain * data.direction, data.axis))
    o_U = (1 - a) * (_predicted(net, base, data) @ data.axis)
    last.weight.copy_((1 - a) * torch.outer(v_C, l_C @ last.weight))
    last.bias.copy_((1 - a) * (l_C @ last.bias) * v_C)
    if model.shortcut is not None:
        s_X = data.regression.coef_
        o_U = o_U + a * (flat_windows(data.x) @ s_X)
        model.shortcut.weight.copy_(a * torch.outer(v_C, torch.from_numpy(s_X).to(v_C)))
        model.shortcut.bias.zero_()
    mean = torch.from_numpy(data.mean + shift * data.direction).to(v_C)
    last.bias.add_(mean - float(o_U[data.known].mean()) * v_C)
    return model.to(base.gain.device)


def _steps(
    base: TrajectoryPredictor, data: AdaptationData, config: AdaptConfig, steps: int
) -> Iterator[tuple[int, TrajectoryNet]]:
    """Trains a copy of the base's net and yields (step, net) for 0 .. steps. The front end is frozen."""
    net = copy.deepcopy(base.net).requires_grad_(False)
    trained = [*net.recurrent.parameters(), *net.decoder.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    rng = np.random.default_rng(config.seed)
    losses = LossConfig(lip=config.lip)
    identity, axis = base.space.identity(data.w_ref), torch.from_numpy(data.axis).to(data.d)
    yield 0, net
    torch.manual_seed(config.seed)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        values, d, known = _windows(data, base, config, rng)
        net.train()
        net.frontend.eval()  # includes its dropout and running statistics
        coefficients, _ = net(values, identity.expand(len(values), -1))
        loss = weighted_sum(stage1_losses(coefficients, d, known, base.space, losses, axis), losses)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        yield step + 1, net


def _windows(
    data: AdaptationData, base: TrajectoryPredictor, config: AdaptConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Augmented windows of the clip: values (N, T, K, M), d (N, T, L, D), and where a face was found (N, T)."""
    length, step = min(config.length, len(data.x)), base.features.rows_per_frame
    candidates = [t for t in range(len(data.x) - length + 1) if data.known[t : t + length].any()]
    starts = np.array(candidates)[rng.integers(0, len(candidates), config.batch)]
    span = (length - 1) * step + base.features.rows
    rows_NJM = np.stack([data.rows[t * step : t * step + span] for t in starts])
    values = windows_of(augment(rows_NJM, config.augment, base.features, rng), base.features)
    d_NTLD = torch.stack([data.d[t : t + length] for t in starts.tolist()])
    known_NT = torch.from_numpy(np.stack([data.known[t : t + length] for t in starts])).to(d_NTLD.device)
    return torch.from_numpy(values).to(d_NTLD.device), d_NTLD, known_NT


@torch.no_grad()
def _predicted(net: TrajectoryNet, base: TrajectoryPredictor, data: AdaptationData) -> np.ndarray:
    """Coefficients (U, C) of all frames by `net`, before the gain."""
    values_NTKM = torch.from_numpy(data.x)[None].to(data.d.device)
    return net.eval()(values_NTKM, base.space.identity(data.w_ref))[0][0].double().cpu().numpy()
