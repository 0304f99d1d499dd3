"""Everything a stage-1 run is at one step, in one file: model, EMA, optimiser, random numbers, sampler, best so far.

A run that is killed and resumed makes the same weights, bit for bit on a CPU, as one that was not.
"""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audio.features import FeatureConfig
from encoders.content_hash import keyed_fields
from stylegan2.weights import atomic_path
from trajectory.data.windows import WindowSampler
from trajectory.model.displacement import DisplacementSpace, TrajectoryError
from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet
from trajectory.temporal import State


@dataclass
class TrainState:
    """Live parts of a run; save and restore move all of them.

    net: the module being trained (not wrapped). space: its frozen projections, so that a resumed run keeps them even
    if a clip was added since. ema: its running average, the one that is validated and exported.
    signature: plain numbers (model, window, space) that must be the same in a checkpoint to resume from it.
    best: EMA weights at the best validation so far, best_score: its score (higher is better), waited: validations since.
    carried: the net's state at the end of the last windows, where they walk through clips. lip_axis: (C,), of this space.
    precision: what scales gradients in float16, if anything does (lightning's plugin: state_dict, load_state_dict).
    """

    net: TrajectoryNet
    space: DisplacementSpace
    optimiser: torch.optim.Optimizer
    sampler: WindowSampler
    signature: Mapping[str, Any]
    rng: np.random.Generator
    step: int = 0
    best_score: float = -float("inf")
    waited: int = 0
    precision: Any = None
    carried: State = None
    lip_axis: Tensor | None = None
    ema: TrajectoryNet = field(init=False)
    best: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.ema = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.best = _copy(self.ema)

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        """ema <- d ema + (1 - d) net, with d = min(decay, (1 + step) / (10 + step)): the first steps are not kept."""
        d = min(decay, (1 + self.step) / (10 + self.step))
        for average, value in zip(
            self.ema.state_dict().values(), self.net.state_dict().values(), strict=True
        ):
            if average.is_floating_point():
                average.lerp_(value, 1 - d)
            else:
                average.copy_(value)

    def keep_best(self, score: float) -> bool:
        """Remembers the EMA weights if `score` is the highest so far."""
        if score > self.best_score:
            self.best_score, self.best, self.waited = score, _copy(self.ema), 0
            return True
        self.waited += 1
        return False

    def gave_up(self, patience: int) -> bool:
        """Whether so many validations in a row brought nothing better (0: never)."""
        return 0 < patience <= self.waited

    def reseed(self, numbers: list[int]) -> None:
        """New random numbers, for the processes whose own ones are in no file."""
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
        self.rng.bit_generator.state = np.random.default_rng(numbers).bit_generator.state

    def save(self, path: str | Path) -> None:
        """One file, written beside `path` and renamed, so that a kill leaves the previous checkpoint whole."""
        content = {
            "signature": json.dumps(self.signature, sort_keys=True),
            "step": self.step,
            "best_score": self.best_score,
            "waited": self.waited,
            "scaler": self.precision.state_dict() if self.precision is not None else {},
            "net": self.net.state_dict(),
            "space": self.space.state_dict(),
            "ema": self.ema.state_dict(),
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "sampler": self.sampler.state_dict(),
            "carried": self.carried,
            "lip_axis": self.lip_axis,
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy_rng": json.dumps(self.rng.bit_generator.state),
        }
        with atomic_path(path) as temporary:
            torch.save(content, temporary)

    def restore(self, path: str | Path) -> None:
        """Puts every part back as `save` found it. Raises TrajectoryError for another model or a broken file."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            saved = json.loads(content["signature"])
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
            raise TrajectoryError(
                f"{path} is not a stage-1 checkpoint or is cut short: start with resume=none"
            ) from error
        if "features" in saved:  # settings that did not exist yet had their default's effect
            saved["features"] = keyed_fields(FeatureConfig()) | saved["features"]
        if "net" in saved:
            saved["net"] = asdict(TrajectoryConfig()) | saved["net"]
            saved = {"select": "correlation", "carry": False} | saved
        changed = changed_keys(saved, json.loads(json.dumps(self.signature)))
        if changed:
            raise TrajectoryError(
                f"{path} was made with another configuration ({', '.join(changed)}): "
                "restore those values, or start anew with resume=none"
            )
        self.step, self.best_score = content["step"], content["best_score"]
        self.waited, self.carried = content.get("waited", 0), content.get("carried")
        if content.get("lip_axis") is not None and self.lip_axis is not None:
            self.lip_axis = content["lip_axis"].to(self.lip_axis)
        if self.precision is not None and content.get("scaler"):
            self.precision.load_state_dict(content["scaler"])
        self.net.load_state_dict(content["net"])
        self.space.load_state_dict(content["space"])
        self.ema.load_state_dict(content["ema"])
        self.best = {key: value.to(self.best[key].device) for key, value in content["best"].items()}
        self.optimiser.load_state_dict(content["optimiser"])
        self.sampler.load_state_dict(content["sampler"])
        self.rng.bit_generator.state = json.loads(content["numpy_rng"])
        torch.set_rng_state(content["torch_rng"])
        if len(content["cuda_rng"]) == torch.cuda.device_count() > 0:
            torch.cuda.set_rng_state_all(content["cuda_rng"])


def changed_keys(saved: Any, current: Any, prefix: str = "") -> list[str]:
    """Dotted names of what differs, each with both values: ["net.hidden was 64, is 128"]."""
    if isinstance(saved, dict) and isinstance(current, dict):
        keys = sorted(saved.keys() | current.keys())
        return [
            text for key in keys for text in changed_keys(saved.get(key), current.get(key), f"{prefix}.{key}")
        ]
    return [] if saved == current else [f"{prefix.lstrip('.')} was {saved}, is {current}"]


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}
