"""Saves and resumes a training: one file with the state of its parts, its random numbers, its step and its settings."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from stylegan2.weights import atomic_path

NOT_PARTS = {"random", "rng", "step", "settings"}  # the other keys of a checkpoint are its parts
DAMAGED = (AttributeError, EOFError, KeyError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError)


class TrainingError(ValueError):
    """A training that cannot start, resume or continue; the message says what to change."""


class Part(Protocol):
    """A module, an optimiser, or another object with a state."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any, /) -> Any: ...


def settings_of(config: Any, free: Collection[str], **more: Any) -> dict[str, Any]:
    """A config's values, and `more`, that a resumed run must share with its checkpoint, as plain JSON values.

    free: names of the fields that may differ.
    """
    values = {key: value for key, value in dataclasses.asdict(config).items() if key not in free}
    return json.loads(json.dumps(values | more))


def checkpoint_to_resume(resume: str, folder: Path) -> Path | None:
    """The checkpoint that resume= names: "auto" is folder/checkpoint.pt if it is there, "none" is None, else a path."""
    if resume == "auto":
        path = folder / "checkpoint.pt"
        return path if path.is_file() else None
    return None if resume == "none" else Path(resume)


def save_checkpoint(
    path: Path,
    parts: Mapping[str, Part],
    random: torch.Generator,
    rng: np.random.Generator,
    step: int,
    settings: Mapping[str, Any],
) -> None:
    """Writes the file atomically: if a run is killed while saving, the previous checkpoint stays intact."""
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"random": random.get_state(), "rng": rng.bit_generator.state}
    state |= {"step": step, "settings": json.dumps(settings)}
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
    """Restores every part and both random generators, and returns the step. what: the trained network, for messages.

    Raises TrainingError if the file is missing or damaged, holds other parts, or was made with other settings.
    """
    if not path.is_file():
        raise TrainingError(f"There is no checkpoint {path}: check resume=, or start anew with resume=none.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved_parts = {name for name, value in state.items() if value is not None} - NOT_PARTS
        if differing := sorted(saved_parts ^ parts.keys()):
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
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:120]
        raise TrainingError(
            f"{path} is no checkpoint of this {what} ({reason}): start anew with resume=none, or under another name."
        ) from error
