"""Axes fitted by regression change their measure, but not measures that correlate with it in the samples."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from drawn_face import landmarks

from encoders.bases.attribute_regression import (
    AXIS_MEASURES,
    MEASURES,
    REACH,
    covariance_direction,
    pitch,
    scaled_to_reach,
    yaw,
)

L, D = 6, 16
RNG = np.random.default_rng(0)
TURN, OPEN = RNG.standard_normal((2, L, D)) / 20


def faces(w_NLD: np.ndarray) -> np.ndarray:
    """Points (N, 68, 2): the nose moves right with <w, TURN>, and the lips open with <w, OPEN>."""
    points = np.repeat(landmarks(40)[None].astype(np.float64), len(w_NLD), 0)
    points[:, 36, 1] -= 4  # eyes that are open
    points[:, 41, 1] += 4
    points[:, [37, 38, 43, 44], 1] -= 6 + RNG.normal(0, 0.5, (len(w_NLD), 1))
    points[:, 30] += np.stack([(w_NLD * TURN).sum((1, 2)), RNG.normal(20, 1, len(w_NLD))], 1)
    points[:, 66, 1] += (w_NLD * OPEN).sum((1, 2))
    points[:, [36, 42], 0] -= 10
    points[:, [39, 45], 0] += 10
    points[:, 48, 0] += RNG.normal(0, 1, len(w_NLD))
    return points


def test_yaw_and_pitch_follow_the_nose():
    face = landmarks(10).astype(np.float64)
    right, down = face.copy(), face.copy()
    right[30, 0] += 8
    down[30, 1] += 8
    assert yaw(right) - yaw(face) == pytest.approx(8 / 80) and yaw(down) == yaw(face)
    assert pitch(down) > pitch(face) and pitch(right) == pitch(face)
    assert set(AXIS_MEASURES) == set(REACH) < set(MEASURES)


def test_a_direction_turns_the_head_without_opening_the_mouth():
    w = RNG.standard_normal((4000, L, D))
    correlated = (w * TURN).sum((1, 2))[:, None, None] * OPEN / (OPEN * OPEN).sum()
    w = w + 0.8 * correlated  # in the samples, turned heads have open mouths
    points = faces(w)
    points[::50] = np.nan
    direction = covariance_direction(w.astype(np.float32), points, "yaw", (0, L - 1)).astype(np.float64)
    naive = ((w * TURN).sum((1, 2))[:, None, None] * (w - w.mean(0))).mean(0)

    def opens(d: np.ndarray) -> float:
        return float((d * OPEN).sum() / (d * TURN).sum())

    assert (direction * TURN).sum() > 0 and abs(opens(direction)) < 0.3 * abs(opens(naive))
    assert not covariance_direction(w.astype(np.float32), points, "yaw", (1, 2))[[0, 3, 4, 5]].any()


def test_a_direction_is_scaled_to_its_reach_whatever_its_length_and_sign():
    generator: Any = SimpleNamespace(synthesis=lambda w: w)
    people = torch.from_numpy(RNG.standard_normal((9, L, D)).astype(np.float32))

    def landmark_net(w: torch.Tensor) -> torch.Tensor:
        points = np.repeat(landmarks(40)[None].astype(np.float64), len(w), 0)
        points[:, 30, 0] += (w.numpy() * TURN).sum((1, 2))
        return torch.from_numpy(points)

    for factor in (1.0, -0.2):
        scaled = scaled_to_reach((factor * TURN).astype(np.float32), "yaw", generator, landmark_net, people)  # type: ignore[arg-type]
        change = yaw(landmark_net(people + torch.from_numpy(scaled)).numpy()) - yaw(
            landmark_net(people).numpy()
        )
        np.testing.assert_allclose(change, REACH["yaw"], rtol=1e-3)


def test_too_few_faces_are_refused():
    with pytest.raises(ValueError, match="only 3 samples have landmarks"):
        covariance_direction(np.zeros((3, L, D), np.float32), faces(np.zeros((3, L, D))), "yaw", (0, 1))
