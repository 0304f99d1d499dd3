"""The gain that undoes the shrinkage of regression, against closed forms."""

import numpy as np

from trajectory.training.amplitude_calibration import LARGEST_GAIN, Agreement, gain_of


def gains(correlation: list[float], predicted: list[float], kind: str = "scalar") -> list[float]:
    """gain_of two coefficients with true standard deviations of 1."""
    report = Agreement(np.array(correlation), np.array(predicted), np.ones(2), np.ones(2), 0.0)
    return gain_of(report, kind).tolist()  # type: ignore[arg-type]


def test_gain_undoes_the_shrinkage_of_regression():
    np.testing.assert_allclose(gains([0.8, 0.0], [0.8, 0.1]), [1.25, 1.25], rtol=1e-6)
    assert gains([0.8, 0.5], [0.8, 0.5], "none") == [1.0, 1.0]
    assert gains([0.9, 0.9], [0.1, 0.1]) == [LARGEST_GAIN] * 2
    assert gains([-0.5, -0.5], [0.5, 0.5]) == [1.0, 1.0]  # speech explains nothing
    assert gains([0.9, 0.9], [2.0, 2.0]) == [1.0, 1.0]  # never smaller than predicted
