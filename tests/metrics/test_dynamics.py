"""Dynamics of mouth, brows, lids and head against closed forms."""

import numpy as np
import pytest
from drawn_face import random_face

from encoders.footage.align import CROP_SIZE
from metrics.measures.dynamics import DYNAMICS, UNITS, dynamics_figures, motion_of

T = 100
SWING = np.sin(np.arange(T) * 2 * np.pi / 20)
ALL = np.ones(T, bool)


def moving_face(amount: float) -> np.ndarray:
    """All curves move: `amount` is how far, relative to 1."""
    points = random_face(T)
    points[:, 62], points[:, 66] = (128, 180), (128, 200)
    points[:, 48], points[:, 54] = (100, 190), (156, 190)
    points[:, 30] = (128, 150)
    points[:, 66, 1] += 8 * amount * SWING
    points[:, 54, 0] += 6 * amount * SWING
    points[:, 17:22], points[:, 22:27] = (88, 85), (168, 85)  # above their eyes
    points[:, 17:27, 1] += 4 * amount * SWING[:, None]
    points[:, [37, 38, 43, 44], 1] += 3 * amount * SWING[:, None]
    points[:, 30, 0] += 5 * amount * SWING
    points[:, 30, 1] += 5 * amount * SWING
    return points


def figures(predicted: np.ndarray, true: np.ndarray) -> dict:
    return dynamics_figures(motion_of(predicted, ALL), motion_of(true, ALL))


def test_the_truth_against_itself():
    same = figures(moving_face(1.0), moving_face(1.0))
    assert set(same) == set(DYNAMICS)
    for name in UNITS.keys() - {"roll"}:
        assert same[f"{name}_spread_ratio"] == same[f"{name}_speed_ratio"] == pytest.approx(1)
    assert all(same[f"{name}_emd"] == same[f"{name}_speed_emd"] == 0 for name in UNITS)
    assert same["roll_spread_ratio"] is None  # the truth does not roll


@pytest.mark.parametrize("amount", [0.0, 0.5, 2.0])
def test_a_dull_and_an_exaggerated_face(amount):
    result = figures(moving_face(amount), moving_face(1.0))
    for name in ("aperture", "width", "brows", "turn", "nod"):
        assert result[f"{name}_spread_ratio"] == pytest.approx(amount), name
        assert result[f"{name}_speed_ratio"] == pytest.approx(amount), name
    swing, speed = (np.abs(x).mean() * abs(amount - 1) * 8 / 80 for x in (SWING, np.diff(SWING) * 25))
    assert result["aperture_emd"] == pytest.approx(swing)
    assert result["aperture_speed_emd"] == pytest.approx(speed)


def test_a_shaking_face_is_faster_and_the_order_of_frames_does_not_matter_to_the_spread():
    order = np.random.default_rng(0).permutation(T)
    result = figures(moving_face(1.0)[order], moving_face(1.0))
    assert result["aperture_spread_ratio"] == pytest.approx(1) and result["aperture_emd"] == pytest.approx(0)
    assert result["aperture_speed_ratio"] > 3 and result["aperture_speed_emd"] > 1


def test_a_delay_is_not_seen():
    late = figures(np.roll(moving_face(1.0), 5, axis=0), moving_face(1.0))
    assert late["aperture_speed_ratio"] == pytest.approx(1, abs=0.02) and late["aperture_emd"] < 1e-9


def test_unknown_frames_and_clips_of_other_lengths():
    broken, known = moving_face(1.0), ALL.copy()
    broken[40], known[40] = np.nan, False
    motion = motion_of(broken, known)
    assert len(motion["aperture"].values) == T - 1 and len(motion["aperture"].speeds) == T - 3
    whole = motion_of(np.concatenate([moving_face(1.0)] * 2), np.ones(2 * T, bool))
    assert dynamics_figures(motion, whole)["aperture_spread_ratio"] == pytest.approx(1, abs=0.02)
    nothing = motion_of(broken, np.zeros(T, bool))
    assert set(dynamics_figures(nothing, whole).values()) == {None}


def test_quads_give_back_the_roll_that_the_crop_takes_away():
    corner = np.array([-0.5, -0.5], dtype=np.float64)
    angle = 0.1 * SWING
    x = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * CROP_SIZE
    y = np.stack([-np.sin(angle), np.cos(angle)], axis=-1) * CROP_SIZE
    quads = np.stack([0 * x, y, x + y, x], axis=1) + corner
    rolled = motion_of(moving_face(1.0), ALL, quads)["roll"].values
    assert rolled.std() == pytest.approx(angle.std(), rel=1e-6)
