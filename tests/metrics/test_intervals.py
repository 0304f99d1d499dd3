"""Bootstrap intervals over clips."""

import numpy as np
import pytest

from metrics.measures.intervals import bootstrap_interval, mean_over


def test_interval_matches_the_normal_theory():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = bootstrap_interval(values.tolist()) or (0, 0)
    error = values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_interval_is_repeatable_and_narrows_with_the_level():
    values = [0.1, 0.5, 0.4, 0.9, None]
    assert bootstrap_interval(values) == bootstrap_interval(values)
    wide, narrow = (bootstrap_interval(values, level) or (0, 0) for level in (0.95, 0.5))
    assert wide[0] < narrow[0] < 0.475 < narrow[1] < wide[1]


def test_missing_values():
    assert mean_over([None, 1.0, 3.0]) == 2.0
    assert mean_over([None]) is None
    assert bootstrap_interval([1.0]) is None
    assert bootstrap_interval([1.0, None]) is None
    assert bootstrap_interval([2.0, 2.0]) == (2.0, 2.0)
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval([1.0, 2.0], level=95)
