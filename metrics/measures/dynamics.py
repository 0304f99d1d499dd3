"""Dynamics: how far and how fast lips, brows, lids and head move, compared with the truth as distributions.

Frames are not paired, so a dull or a shaking face shows even where the prediction says other words than the truth.
T frames at 25 fps; landmarks (T, 68, 2) px; quads (T, 4, 2): corners of the crop in the frame.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from encoders.geometry import CONSTANT, aperture, brow_height, eye_openness, width
from metrics.measures.head_motion import head_pose
from metrics.measures.lip_silence import speed

UNITS = {  # curve: unit
    "aperture": "inter-ocular distances",
    "width": "inter-ocular distances",
    "brows": "inter-ocular distances",
    "lids": "eye aspect ratio",
    "roll": "radians",
    "turn": "inter-ocular distances of the nose tip along the eye line (yaw)",
    "nod": "inter-ocular distances of the nose tip across the eye line (pitch)",
}
# column: (definition, digits), as in metrics.report.report_files.COLUMNS
DYNAMICS: dict[str, tuple[str, int]] = {
    f"{curve}_{figure}": (f"{text.format(curve)}{f'; {unit}' if figure.endswith('emd') else ''}", 3)
    for curve, unit in UNITS.items()
    for figure, text in {
        "spread_ratio": "standard deviation of {} over the truth's",
        "speed_ratio": "mean speed of {} over the truth's",
        "emd": "earth mover's distance of {} from the truth's",
        "speed_emd": "earth mover's distance of the speed of {} from the truth's, a second",
    }.items()
}


class Motion(NamedTuple):
    """A curve's values (K,) and its absolute speeds a second (M,), in no order that matters."""

    values: np.ndarray
    speeds: np.ndarray


def motion_of(
    landmarks_T: np.ndarray, known_T: np.ndarray, quads_T: np.ndarray | None = None
) -> dict[str, Motion]:
    """Motion of each curve of UNITS over the frames where the landmarks are known; speeds between two such frames.

    quads: to measure the head in the frame; without them it is measured inside the crop, which follows the true head.
    """
    known = np.asarray(known_T, bool)
    points = np.asarray(landmarks_T)[known]
    if not len(points):
        return {name: Motion(np.zeros(0), np.zeros(0)) for name in UNITS}
    roll, turn, nod = head_pose(points, None if quads_T is None else np.asarray(quads_T)[known])[:, 2:].T
    curves = (aperture(points), width(points), brow_height(points), eye_openness(points), roll, turn, nod)
    motions = {}
    for name, values in zip(UNITS, curves, strict=True):
        curve = np.full(len(known), np.nan)
        curve[known] = values
        speeds = speed(curve, known)
        motions[name] = Motion(values[np.isfinite(values)], speeds[np.isfinite(speeds)])
    return motions


def dynamics_figures(predicted: Mapping[str, Motion], true: Mapping[str, Motion]) -> dict[str, float | None]:
    """One value per name in DYNAMICS; None where a curve is unknown, and ratios where the truth does not move."""
    from scipy.stats import wasserstein_distance

    figures: dict[str, float | None] = dict.fromkeys(DYNAMICS)
    for name in UNITS:
        ours, truth = predicted[name], true[name]
        if min(len(ours.values), len(truth.values)) >= 2:
            figures[f"{name}_spread_ratio"] = _over(ours.values.std(), truth.values.std())
            figures[f"{name}_emd"] = float(wasserstein_distance(ours.values, truth.values))
        if min(len(ours.speeds), len(truth.speeds)) >= 1:
            figures[f"{name}_speed_ratio"] = _over(ours.speeds.mean(), truth.speeds.mean())
            figures[f"{name}_speed_emd"] = float(wasserstein_distance(ours.speeds, truth.speeds))
    return figures


def _over(value: float, true: float) -> float | None:
    return float(value / true) if true >= CONSTANT else None
