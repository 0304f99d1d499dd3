"""Frozen linear bases of W+ displacements, shared by stage 1, tuning and the corpus.

Shapes: N samples, T frames, K components, L rows of W+, D = 512.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stylegan2.weights import WeightsError, read_weights

MOUTH_AXES = ("open", "wide", "round", "press")
HEAD_AXES = ("yaw", "pitch")
AXES = (
    *MOUTH_AXES,
    "blink",
    *HEAD_AXES,
)  # the viseme basis: articulations, lids, and small turns of the head
VISEMES = Path(__file__).parents[1] / "assets" / "viseme_basis.safetensors"


@dataclass(frozen=True)
class VisemeBasis:
    """Articulatory axes as W+ displacements, the same for everybody.

    names: A names; directions: (A, L, D) float32, the displacement at full amplitude (weight 1).
    """

    names: tuple[str, ...]
    directions: np.ndarray

    def displacement(self, weights_TA: np.ndarray) -> np.ndarray:
        """Weights (T, A), in [0, 1] where natural, the head's in [-1, 1] -> displacements (T, L, D) to add to a person's neutral code."""
        return np.tensordot(np.asarray(weights_TA, np.float32), self.directions, axes=1)


def load_viseme_basis(path: str | Path = "embedded") -> VisemeBasis:
    """The basis in a weight file; WeightsError for any other file."""
    path = VISEMES if str(path) == "embedded" else Path(path)
    weights = read_weights(path)
    if weights.kind != "viseme_basis" or "directions" not in weights.state:
        raise WeightsError(f"{path} holds {weights.kind!r} weights, not a viseme basis.")
    return VisemeBasis(tuple(weights.config["names"]), weights.state["directions"].numpy())
