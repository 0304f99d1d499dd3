"""KID against its definition, and that it is unbiased."""

import numpy as np
import pytest

from metrics.measures.kid import kid

RNG = np.random.default_rng(0)


def test_kid_against_a_loop_over_pairs():
    x, y = RNG.normal(size=(6, 3)), RNG.normal(0.5, 1, (5, 3))

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert kid(x, y) == pytest.approx(xx + yy - 2 * xy)
    assert kid(x, y) == pytest.approx(kid(y, x)) == pytest.approx(kid(x[::-1], y))
    with pytest.raises(ValueError, match="two frames"):
        kid(x[:1], y)


def test_kid_is_unbiased_where_fid_is_not():
    """Two samples of one distribution: KID scatters about 0 at any N, the biased version does not."""
    draws = [kid(*np.random.default_rng(s).normal(size=(2, 20, 16))) for s in range(60)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(60)
