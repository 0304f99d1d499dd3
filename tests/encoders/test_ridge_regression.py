"""Ridge regression against its closed form, and the choice of its penalty."""

import numpy as np
import pytest

from encoders.ridge_regression import LEAST, PENALTIES, cross_validated, fit_ridge


@pytest.mark.parametrize("frames", [30, 200])  # fewer and more frames than inputs
def test_ridge_matches_the_closed_form(frames):
    """s = X' (X X' + k I)^-1 y on centred X and y, k the penalty times the mean squared length of a row of X."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((frames, 80)), rng.standard_normal(frames)
    centred = x - x.mean(0)
    gram = centred @ centred.T
    k = 0.3 * np.trace(gram) / frames
    weights = centred.T @ np.linalg.solve(gram + k * np.eye(frames), y - y.mean())
    predicted = fit_ridge(x, y, 0.3).predict(x[:5])
    np.testing.assert_allclose(predicted, centred[:5] @ weights + y.mean(), atol=1e-9)


def test_linear_data_select_the_weakest_penalty_and_noise_the_strongest():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 5))
    law, noise = x @ rng.standard_normal(5), rng.standard_normal(200)
    for y, penalty in ((law, PENALTIES[0]), (noise, PENALTIES[-1])):
        expected = fit_ridge(x, y, penalty).predict(x)
        np.testing.assert_array_equal(cross_validated(x, y).predict(x), expected)


def test_too_few_frames_are_refused():
    x = np.zeros((LEAST - 1, 5))
    with pytest.raises(ValueError, match=f"needs {LEAST} frames"):
        cross_validated(x, x[:, 0])
