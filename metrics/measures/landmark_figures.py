"""Computes all figures of a clip that depend on landmarks only.

Landmarks (T, 68, 2) are px of the aligned crop. For a frame without a detected face the caller passes the landmarks of the
static row.
"""

import numpy as np

from encoders.geometry import aperture, correlation, inter_ocular, width
from encoders.lmd import landmark_distance, mouth_distance
from metrics.measures.head_motion import blink_rate, head_pose, head_spread
from metrics.measures.lip_motion import best_lag, closure_recall, uncentred_mouth_distance

SEQUENCE = (
    *("lmd", "lmd_mouth", "lmd_mouth_iod", "f_lmd", "m_lmd"),
    *("mouth_corr", "mouth_corr_best", "mouth_lag", "width_corr", "width_corr_best", "width_lag"),
    *("closure_recall", "blink_rate", "blink_error", "head_motion", "head_error"),
)


def sequence_figures(
    predicted: np.ndarray,
    true: np.ndarray,
    detected: np.ndarray,
    predicted_quads: np.ndarray | None = None,
    true_quads: np.ndarray | None = None,
) -> dict[str, float | None]:
    """One value per name in SEQUENCE, over T frames whose true landmarks are known; None for T = 0.

    detected bool (T,): whether a face was found in the predicted frame; in frames without one the lips do not count as
    closed. quads (T, 4, 2): corners of the crops in the frame, to measure head motion in the frame; without them it is
    measured inside the crop.
    """
    if len(true) == 0:
        return dict.fromkeys(SEQUENCE)
    iod = inter_ocular(true)
    opening, true_opening = aperture(predicted), aperture(true)
    mouth_best, mouth_lag = best_lag(opening, true_opening)
    width_best, width_lag = best_lag(width(predicted), width(true))
    blinks, true_blinks = blink_rate(predicted), blink_rate(true)
    pose, true_pose = head_pose(predicted, predicted_quads), head_pose(true, true_quads)
    return {
        "lmd": float(landmark_distance(predicted, true).mean()),
        "lmd_mouth": float(mouth_distance(predicted, true).mean()),
        "lmd_mouth_iod": float((mouth_distance(predicted, true) / iod).mean()),
        "f_lmd": float((landmark_distance(predicted, true) / iod).mean()),
        "m_lmd": float((uncentred_mouth_distance(predicted, true) / iod).mean()),
        "mouth_corr": correlation(opening, true_opening),
        "mouth_corr_best": mouth_best,
        "mouth_lag": mouth_lag,
        "width_corr": correlation(width(predicted), width(true)),
        "width_corr_best": width_best,
        "width_lag": width_lag,
        "closure_recall": closure_recall(np.where(detected, opening, np.nan), true_opening),
        "blink_rate": blinks,
        "blink_error": abs(blinks - true_blinks),
        "head_motion": head_spread(pose),
        "head_error": head_spread(pose - true_pose),
    }
