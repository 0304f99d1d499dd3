"""The viseme basis: articulations of the mouth, a blink and small head turns as W+ displacements.

It is fitted once (encoders/bases/viseme_fit.py), is the same for every person, and is used by the synthetic corpus,
tuning and encoder training. Shapes: T frames, A axes, L rows of W+, D = 512.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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


def random_pose(
    basis: VisemeBasis, random: torch.Generator, rows: int, device: torch.device | str = "cpu"
) -> Tensor:
    """The displacement (rows, D) of a random articulation in a random small turn of the head: the mouth opened by 0 to 1,
    one other axis of it by 0 to 0.7, yaw and pitch of -0.5 to 0.5. Rows that the basis lacks stay zero.
    """
    weights = torch.zeros(len(basis.names))
    u = torch.rand(5, generator=random)
    weights[basis.names.index("open")] = u[0]
    weights[basis.names.index(("wide", "round", "press")[int(3 * u[1])])] = 0.7 * u[2]
    for axis, value in zip(HEAD_AXES, u[3:], strict=True):
        weights[basis.names.index(axis)] = value - 0.5
    d_LD = torch.from_numpy(basis.displacement(weights.numpy()))[:rows]
    return torch.nn.functional.pad(d_LD, (0, 0, 0, rows - len(d_LD))).to(device)
