"""The state of stage-1 training: everything that changes during training, saved to and resumed from one file.

A training that is killed and resumed ends with the same weights as an uninterrupted one, bit for bit on a CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.training.resume import Part, load_checkpoint, save_checkpoint
from trajectory.data.windows import WindowSampler
from trajectory.model.displacement import DisplacementSpace
from trajectory.model.recurrent_net import TrajectoryNet


@dataclass
class TrainState:
    """The parts of a training that a checkpoint holds, together with torch's and numpy's random numbers and the step."""

    net: TrajectoryNet  # the module that is trained, not Fabric's wrapper
    space: DisplacementSpace  # saved, so that clips added later do not change the projections of a resumed training
    optimiser: torch.optim.Optimizer
    sampler: WindowSampler
    settings: Mapping[
        str, Any
    ]  # plain numbers that must be the same in a checkpoint to resume from it (see `flat`)
    rng: np.random.Generator  # draws the frames that are rendered
    precision: Any  # Lightning's precision plugin, which holds the gradient scaler of float16
    lip_axis: Tensor | None = None  # (C,), in the coefficients of `space` and therefore saved with it
    step: int = 0
    best_score: float = -float("inf")  # the highest validation score so far
    waited: int = 0  # validations since then
    ema: TrajectoryNet = field(init=False)  # running average of net, which is validated and exported
    best: dict[str, Tensor] = field(init=False)  # EMA weights at the best validation

    def __post_init__(self) -> None:
        self.ema = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.best = _copy(self.ema)

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        """ema <- d ema + (1 - d) net, d = min(decay, (1 + step) / (10 + step)), so that the initial weights have little
        influence.
        """
        d = min(decay, (1 + self.step) / (10 + self.step))
        pairs = zip(self.ema.state_dict().values(), self.net.state_dict().values(), strict=True)
        for average, value in pairs:
            if average.is_floating_point():
                average.lerp_(value, 1 - d)
            else:
                average.copy_(value)

    def keep_best(self, score: float) -> None:
        """Copies the EMA weights if `score` is the highest so far."""
        if score > self.best_score:
            self.best_score, self.best, self.waited = score, _copy(self.ema), 0
        else:
            self.waited += 1

    def out_of_patience(self, patience: int) -> bool:
        """Whether the last `patience` validations brought no better score (0: never)."""
        return 0 < patience <= self.waited

    def reseed(self, seed: list[int]) -> None:
        """Seeds the random state of a process whose state is not in the checkpoint."""
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        self.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state

    def save(self, path: Path) -> None:
        """Writes one file under a temporary name and renames it, so that a kill leaves the previous checkpoint
        intact.
        """
        save_checkpoint(path, self._parts(), torch.default_generator, self.rng, self.step, self.settings)

    def restore(self, path: Path) -> None:
        """Restores every part. Raises what `load_checkpoint` raises for other settings or a damaged file."""
        self.step = load_checkpoint(
            path, self._parts(), torch.default_generator, self.rng, self.settings, "stage-1 training"
        )

    def _parts(self) -> dict[str, Part]:
        parts: dict[str, Part] = {"net": self.net, "space": self.space, "ema": self.ema, "progress": self}
        return parts | {"optimiser": self.optimiser, "sampler": self.sampler, "precision": self.precision}

    def state_dict(self) -> dict[str, Any]:
        """The state that is in no other part."""
        names = ("best", "best_score", "waited", "lip_axis")
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {name: getattr(self, name) for name in names} | {"cuda_random": cuda}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best_score, self.waited = state["best_score"], state["waited"]
        self.best = {key: value.to(self.best[key].device) for key, value in state["best"].items()}
        if state["lip_axis"] is not None and self.lip_axis is not None:
            self.lip_axis = state["lip_axis"].to(self.lip_axis)
        if len(state["cuda_random"]) == torch.cuda.device_count() > 0:
            torch.cuda.set_rng_state_all(state["cuda_random"])


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names: {"net": {"hidden": 64}} -> {"net.hidden": 64}. Tuples become lists, as in JSON."""
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[prefix + name] = list(value) if isinstance(value, tuple) else value
    return values


def changed_keys(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """The differences between nested settings, by dotted names: ["net.hidden was 64, is 128"]."""
    old, new = flat(saved), flat(current)
    keys = sorted(old.keys() | new.keys())
    return [f"{key} was {old.get(key)}, is {new.get(key)}" for key in keys if old.get(key) != new.get(key)]


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}
