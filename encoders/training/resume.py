"""One file that a training run goes on from: the state of its parts, both sources of random numbers, and the step."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from stylegan2.weights import WeightsError, atomic_path


class Part(Protocol):
    """A module, an optimiser, or what else has a state."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any, /) -> Any: ...


def settings_of(config: Any, free: Collection[str], **more: Any) -> dict[str, Any]:
    """A config's values that a checkpoint must share with the run that goes on from it, as JSON knows them; those named in
    `free` may change."""
    values = {key: value for key, value in dataclasses.asdict(config).items() if key not in free}
    return json.loads(json.dumps(values | more))


def save_checkpoint(
    path: Path,
    parts: Mapping[str, Part],
    random: torch.Generator,
    rng: np.random.Generator,
    step: int,
    settings: Mapping[str, Any],
) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"random": random.get_state(), "rng": rng.bit_generator.state, "step": step}
    state |= {"settings": json.dumps(settings)}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(
    path: Path,
    parts: Mapping[str, Part],
    random: torch.Generator,
    rng: np.random.Generator,
    settings: Mapping[str, Any],
    what: str,
) -> int:
    """Puts every part back and returns the step. WeightsError if the file is missing or damaged, holds other parts, or was
    made with other settings."""
    if not path.is_file():
        raise WeightsError(f"There is no checkpoint {path}: check resume=, or start anew with resume=none.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        held = {name for name, value in state.items() if value is not None}
        if differing := sorted(held - {"random", "rng", "step", "settings"} ^ parts.keys()):
            raise ValueError(f"with or without {', '.join(differing)}")
        saved = json.loads(state.get("settings", "{}"))
        if changed := [
            f"{key} was {saved[key]}, is {now}" for key, now in settings.items() if saved.get(key, now) != now
        ]:
            raise ValueError(", ".join(changed))
        for name, part in parts.items():
            part.load_state_dict(state[name])
        random.set_state(state["random"])
        rng.bit_generator.state = state["rng"]
        return int(state["step"])
    except (
        AttributeError,
        EOFError,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        reason = " ".join(str(error).split())[:120]
        raise WeightsError(
            f"{path} is no checkpoint of this {what} ({reason}): start anew with resume=none, or under another name."
        ) from error
