"""One file that a training run goes on from: the state of its parts, both sources of random numbers, and the step."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from stylegan2.weights import WeightsError, atomic_path


class Part(Protocol):
    """A module, an optimiser, or what else has a state."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any, /) -> Any: ...


def save_checkpoint(
    path: Path, parts: Mapping[str, Part], random: torch.Generator, rng: np.random.Generator, step: int
) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"random": random.get_state(), "rng": rng.bit_generator.state, "step": step}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(
    path: Path, parts: Mapping[str, Part], random: torch.Generator, rng: np.random.Generator, what: str
) -> int:
    """Puts every part back and returns the step. WeightsError if the file is missing, damaged or holds other parts."""
    if not path.is_file():
        raise WeightsError(f"There is no checkpoint {path}: check resume=, or start anew with resume=none.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        held = {name for name, value in state.items() if value is not None} - {"random", "rng", "step"}
        if differing := sorted(held ^ parts.keys()):
            raise ValueError(f"with or without {', '.join(differing)}")
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
            f"{path} is no checkpoint of this {what} ({reason}): start anew with resume=none."
        ) from error
