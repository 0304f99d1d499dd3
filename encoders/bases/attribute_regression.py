"""Directions of W+ that turn the head or close the eyes, by regression on labelled generator samples.

For a measure m of faces, such as the head's yaw, the covariance direction c_m is how W+ codes change with m on average,
in the chosen rows. Components that change other measures are removed (conditional manipulation as in InterFaceGAN, Shen
et al. 2020): the regression coefficients b of these measures are projected out.

    c_m = E[(w - E w)(m - E m)] / std m     b_m = (C + ridge I)^-1 c_m,  C the covariance of w
    d_m = c_m - P c_m,  P the projection onto the span of the other measures' b

Shapes: N samples, P people, L rows of W+, D = 512, landmarks (N, 68, 2) px of the 256 px crop.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from encoders.geometry import MOUTH, aperture, eye_centres, eye_openness, inter_ocular, width
from stylegan2.protocol import Generator

HEAD_ROWS, LID_ROWS = (0, 3), (4, 7)  # coarse rows turn the head, finer ones move the lids
# Change of each measure at weight 1: a turn of about 6 degrees, a nod of about 3, closed eyelids.
REACH = {"yaw": 0.06, "pitch": 0.03, "blink": -0.18}
RIDGE = 0.1  # ridge of the regression, relative to the mean variance of an entry of w
STEP = 0.5  # multiple of the direction at which its effect is measured

Measure = Callable[[np.ndarray], np.ndarray]


def yaw(points: np.ndarray) -> np.ndarray:
    """Distance of the nose tip to the right of the eyes' midpoint, in inter-ocular distances, (..., 68, 2) -> (...)."""
    return (points[..., 30, 0] - eye_centres(points).mean(-2)[..., 0]) / inter_ocular(points)


def pitch(points: np.ndarray) -> np.ndarray:
    """Position of the nose tip between eyes (0) and mouth (1), (..., 68, 2) -> (...); it grows as the head nods."""
    eyes, mouth = eye_centres(points).mean(-2)[..., 1], points[..., MOUTH, 1].mean(-1)
    return (points[..., 30, 1] - eyes) / (mouth - eyes)


AXIS_MEASURES: dict[str, Measure] = {"yaw": yaw, "pitch": pitch, "blink": eye_openness}
MEASURES: dict[str, Measure] = AXIS_MEASURES | {"aperture": aperture, "width": width}


def covariance_direction(
    w_NLD: np.ndarray, points: np.ndarray, axis: str, rows: tuple[int, int]
) -> np.ndarray:
    """d_m of an axis in the rows from first to last, float32 (L, D), zero in the other rows.

    Samples without landmarks (nan) are ignored. Raises ValueError for fewer samples than twice the number of measures.
    """
    known = np.isfinite(points).all((1, 2))
    if known.sum() < 2 * len(MEASURES):
        raise ValueError(f"only {known.sum()} samples have landmarks: too few to fit an axis")
    first, last = rows
    flat = w_NLD[known, first : last + 1].reshape(known.sum(), -1).astype(np.float64)
    flat -= flat.mean(0)
    values = {name: measure(points[known].astype(np.float64)) for name, measure in MEASURES.items()}
    common = np.stack([(m - m.mean()) @ flat / (m.std() * len(flat)) for m in values.values()], 1)
    covariance = flat.T @ flat / len(flat)
    ridge = RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    confounders = np.linalg.solve(covariance + ridge, common)[:, [name != axis for name in values]]
    basis, _ = np.linalg.qr(confounders)
    direction = common[:, list(values).index(axis)]
    direction = direction - basis @ (basis.T @ direction)
    result = np.zeros(w_NLD.shape[1:], np.float32)
    result[first : last + 1] = direction.reshape(last + 1 - first, -1)
    return result


@torch.no_grad()
def scaled_to_reach(
    direction_LD: np.ndarray, axis: str, generator: Generator, landmarks: nn.Module, people_PLD: Tensor
) -> np.ndarray:
    """The direction scaled to change the axis' measure by REACH, from the measure's slope around `people`.

    landmarks: the landmark network.
    """
    step = torch.from_numpy(STEP * direction_LD).to(people_PLD)
    measured = []
    for sign in (1, -1):
        moved = (people_PLD + sign * step).split(8)
        points = np.concatenate([landmarks(generator.synthesis(w)).cpu().numpy() for w in moved])
        measured.append(AXIS_MEASURES[axis](points))
    slope = float((measured[0] - measured[1]).mean()) / (2 * STEP)
    return (direction_LD * (REACH[axis] / slope)).astype(np.float32)
