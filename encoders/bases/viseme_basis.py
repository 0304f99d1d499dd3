"""The viseme basis: articulations of the mouth, a blink and small head turns as W+ displacements.

It is fitted once (encoders/bases/viseme_fit.py), is the same for every person, and is used by the synthetic corpus,
tuning and encoder training. Shapes: T frames, A axes, L rows of W+, D = 512.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stylegan2.weights import WeightsError, read_weights

MOUTH_AXES = ("open", "wide", "round", "press")
HEAD_AXES = ("yaw", "pitch")
AXES = (*MOUTH_AXES, "blink", *HEAD_AXES)
VISEMES = Path(__file__).parents[1] / "assets" / "viseme_basis.safetensors"  # the embedded basis


@dataclass(frozen=True)
class VisemeBasis:
    names: tuple[str, ...]  # names of the A axes
    directions: np.ndarray  # float32 (A, L, D), the displacement at full amplitude (weight 1)

    def displacement(self, weights_TA: np.ndarray) -> np.ndarray:
        """Weights (T, A), usually in [0, 1] (head axes: [-1, 1]) -> displacements (T, L, D) to add to a person's
        neutral code.
        """
        return np.tensordot(np.asarray(weights_TA, np.float32), self.directions, axes=1)


def load_viseme_basis(path: str | Path = "embedded") -> VisemeBasis:
    """The basis in a weight file; WeightsError for any other file."""
    path = VISEMES if str(path) == "embedded" else Path(path)
    weights = read_weights(path)
    if weights.kind != "viseme_basis" or "directions" not in weights.state:
        raise WeightsError(f"{path} holds {weights.kind!r} weights, not a viseme basis.")
    return VisemeBasis(tuple(weights.config["names"]), weights.state["directions"].numpy())
