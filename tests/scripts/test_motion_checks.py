"""check_assets.py's measures of natural motion, on tracks with known answers."""

import json

import numpy as np
import pytest

from scripts.assets.fit_motion import WINDOW, window_figures
from scripts.assets.motion_checks import blink_figures, lowest_openness, runs, summary, within_quartiles
from trajectory.motion.natural_motion import ASSET
from trajectory.motion.tracks import POSE_AXES


def test_blinks_are_counted_timed_and_spaced():
    lids = np.zeros(750)
    lids[100:103] = lids[150:154] = lids[250:253] = 1
    assert runs(lids > 0.5) == [(100, 103), (150, 154), (250, 253)]
    assert blink_figures([lids, np.zeros(750)]) == {
        "per_minute": 3.0,
        "half_closed": [0.12, 0.12, 0.14],
        "spacing": [2.5, 3.0, 3.5],
    }
    assert blink_figures([np.zeros(50)]) == {"per_minute": 0.0, "half_closed": None, "spacing": None}


def test_the_lowest_openness_is_that_of_each_blink():
    landmarks = np.random.default_rng(0).uniform(0, 200, (68, 2))
    shut = landmarks.copy()
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        shut[upper] = shut[lower] + 0.25 * (landmarks[upper] - landmarks[lower])
    points = np.stack([shut if k in (3, 4) else landmarks for k in range(12)])
    lids = np.isin(np.arange(12), (3, 4, 8)).astype(float)
    assert lowest_openness(lids, points) == pytest.approx([0.25, 1])


def test_a_still_head_and_a_restless_one_lie_outside_the_real_quartiles():
    real = json.loads(ASSET.read_text(encoding="utf-8"))["made_from"]["held_out"]
    poses = np.random.default_rng(0).standard_normal((3, 2 * WINDOW + 10, len(POSE_AXES)))
    assert set(real) == set(window_figures(poses[:, :WINDOW]))
    for scale, outside in ((0.0, 1.0), (100.0, 1.0)):
        found = within_quartiles(list(scale * poses))
        assert found["inside"] == 1 - outside and set(found["outside"]) == set(real)


def test_a_summary_has_means_of_the_numbers_that_all_records_have():
    records = [{"name": "a", "lips": 0.9, "axes": {}}, {"name": "b", "lips": 1.0, "axes": {}}]
    poses = [np.zeros((WINDOW, len(POSE_AXES)))] * 2
    found = summary(records, poses)
    assert found["lips"] == 0.95 and found["each"] == records and "name" not in found
