"""All figures that come from a clip's landmarks over time; every way of scoring a clip ends here.

Landmarks (T, 68, 2) are px of the aligned crop; curves (T,) are over the inter-ocular distance. A frame without a
detected face comes with the landmarks of the static row, and closes no lips.
"""

import numpy as np

from encoders.geometry import aperture, correlation, inter_ocular, width
from encoders.lmd import landmark_distance, mouth_distance
from metrics.measures.head_motion import blink_rate, head_pose, head_spread
from metrics.measures.legacy_definitions import lmd_mean
from metrics.measures.lip_motion import best_lag, closure_recall, mouth_distance_iod

SEQUENCE = (
    "lmd",
    "lmd_mouth",
    "lmd_mouth_iod",
    "f_lmd",
    "m_lmd",
    "mouth_corr",
    "mouth_corr_best",
    "mouth_lag",
    "width_corr",
    "width_corr_best",
    "width_lag",
    "closure_recall",
    "blink_rate",
    "blink_error",
    "head_motion",
    "head_error",
)


def sequence_figures(
    predicted: np.ndarray,
    true: np.ndarray,
    detected: np.ndarray,
    predicted_quads: np.ndarray | None = None,
    true_quads: np.ndarray | None = None,
) -> dict[str, float | None]:
    """SEQUENCE -> value, of T frames with known true landmarks.

    detected bool (T,): the prediction's. quads (T, 4, 2): where the crops lie in the frame, for the head's motion
    there; without them it is the motion inside the crop.
    """
    if len(true) == 0:
        return dict.fromkeys(SEQUENCE)
    opening, true_opening = aperture(predicted), aperture(true)
    mouth, mouth_lag = best_lag(opening, true_opening)
    wide, wide_lag = best_lag(width(predicted), width(true))
    blinks, true_blinks = blink_rate(predicted), blink_rate(true)
    pose, true_pose = head_pose(predicted, predicted_quads), head_pose(true, true_quads)
    return {
        "lmd": float(landmark_distance(predicted, true).mean()),
        "lmd_mouth": float(mouth_distance(predicted, true).mean()),
        "lmd_mouth_iod": float(mouth_distance_iod(predicted, true).mean()),
        "f_lmd": float((landmark_distance(predicted, true) / inter_ocular(true)).mean()),
        "m_lmd": float((lmd_mean(predicted, true) / inter_ocular(true)).mean()),
        "mouth_corr": correlation(opening, true_opening),
        "mouth_corr_best": mouth,
        "mouth_lag": mouth_lag,
        "width_corr": correlation(width(predicted), width(true)),
        "width_corr_best": wide,
        "width_lag": wide_lag,
        "closure_recall": closure_recall(np.where(detected, opening, np.nan), true_opening),
        "blink_rate": blinks,
        "blink_error": abs(blinks - true_blinks),
        "head_motion": head_spread(pose),
        "head_error": head_spread(pose - true_pose),
    }
