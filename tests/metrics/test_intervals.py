"""Means, bootstrap intervals and paired differences over clips."""

import numpy as np
import pytest

from metrics.measures.intervals import (
    bootstrap_interval,
    mean_over,
    paired_difference,
    speaker_interval,
    weighted_interval,
    weighted_mean,
)


def test_interval_matches_the_normal_theory():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = bootstrap_interval(values.tolist()) or (0, 0)
    error = values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_interval_is_repeatable_and_does_not_depend_on_the_order():
    values = [0.1, 0.5, 0.4, 0.9, None]
    low, high = bootstrap_interval(values) or (0, 0)
    assert (low, high) == bootstrap_interval(values[::-1]) and low < 0.475 < high


def test_missing_values():
    assert mean_over([None, 1.0, 3.0]) == 2.0
    assert mean_over([None]) is None
    assert bootstrap_interval([1.0]) is None
    assert bootstrap_interval([1.0, None]) is None
    assert bootstrap_interval([2.0, 2.0]) == (2.0, 2.0)


def test_weighted_means_and_intervals():
    assert weighted_mean([1.0, None, 4.0], [1, 5, 3]) == pytest.approx(13 / 4)
    assert weighted_mean([None], [1]) is None
    low, high = weighted_interval([1.0, 1.0, 1.0], [1, 2, 3]) or (0, 0)
    assert low == high == 1
    low, high = weighted_interval([0.0, 1.0], [1, 3]) or (0, 0)
    assert (low, high) == (0, 1)
    assert weighted_interval([1.0], [1]) is None


def test_only_clips_that_both_have_are_compared():
    first, second = {"a": 1.0, "b": 9.0, "c": None}, {"a": 0.5, "c": 2.0, "d": 7.0}
    gap = paired_difference(first, second, {})
    assert gap and gap["mean"] == 0.5 and gap["n_clips"] == 1 and gap["interval"] is None
    assert paired_difference({"a": 1.0}, {"b": 1.0}, {}) is None


def test_speakers_are_drawn_with_all_their_clips():
    """Clips of one speaker are similar here, so an interval that treats clips as independent would be too narrow."""
    rng = np.random.default_rng(0)
    who = np.repeat([f"s{i}" for i in range(8)], 25)
    values = np.repeat(rng.normal(0, 1, 8), 25) + rng.normal(0, 0.1, 200)
    low, high = speaker_interval(values.tolist(), who.tolist()) or (0, 0)
    means = [values[who == name].mean() for name in sorted(set(who))]
    assert high - low == pytest.approx(2 * 1.96 * np.std(means) / np.sqrt(8), rel=0.15)
    assert speaker_interval([1.0, 2.0], ["a", "a"]) is None
