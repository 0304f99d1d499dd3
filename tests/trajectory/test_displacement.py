"""The two frozen projections: exact inverses, row ranges, and rebuilding from plain numbers."""

from typing import Any

import numpy as np
import pytest
import torch

from trajectory.model.displacement import DisplacementConfig, DisplacementSpace, TrajectoryError, fit_space

ROWS, DIM = 6, 8


def samples(num=40, seed=0):
    return np.random.default_rng(seed).standard_normal((num, ROWS, DIM)).astype(np.float32)


@pytest.mark.parametrize("components", [3, 48])
@pytest.mark.parametrize("rows", [None, [2, 5]])
def test_decode_then_encode_is_the_identity(components, rows):
    space = fit_space(samples(), samples(30, 1), DisplacementConfig(components, 4, rows))
    c = torch.randn(2, 5, space.num_coefficients)
    assert torch.allclose(space.encode(space.decode(c)), c, atol=1e-3)


def test_enough_components_lose_nothing():
    d = samples(100)
    space = fit_space(d, samples(30, 1), DisplacementConfig(48, 4))
    assert torch.allclose(space.decode(space.encode(torch.tensor(d))), torch.tensor(d), atol=1e-4)


def test_rows_outside_the_range_never_move():
    space = fit_space(samples(), samples(30, 1), DisplacementConfig(3, 4, [2, 5]))
    d = space.decode(torch.randn(2, 5, 3))
    assert d.shape == (2, 5, ROWS, DIM)
    assert not d[..., :2, :].any() and not d[..., 5:, :].any() and d[..., 2:5, :].any()


def test_zero_coefficients_are_the_mean_displacement():
    d = samples()
    space = fit_space(d, samples(30, 1), DisplacementConfig(3, 4))
    assert torch.allclose(space.decode(torch.zeros(1, 1, 3))[0, 0], torch.tensor(d.mean(0)), atol=1e-6)


def test_identities_are_standardised():
    identities = samples(200, 1)
    space = fit_space(samples(), identities, DisplacementConfig(3, 4))
    v = space.identity(torch.tensor(identities))
    assert v.shape == (200, 4)
    assert torch.allclose(v.mean(0), torch.zeros(4), atol=1e-4)
    assert torch.allclose(v.std(0, correction=0), torch.ones(4), atol=1e-3)


def test_a_space_is_rebuilt_from_its_layout_and_state():
    space = fit_space(samples(), samples(30, 1), DisplacementConfig(5, 4, [1, 3]))
    again = DisplacementSpace.from_layout(space.layout())
    again.load_state_dict(space.state_dict())
    d = torch.randn(1, 2, ROWS, DIM)
    assert torch.equal(space.encode(d), again.encode(d))


def test_still_clips_and_impossible_rows_are_refused():
    with pytest.raises(TrajectoryError, match="equal"):
        fit_space(np.ones((9, ROWS, DIM), np.float32), samples(), DisplacementConfig(3, 4))
    with pytest.raises(TrajectoryError, match="outside"):
        fit_space(samples(), samples(30, 1), DisplacementConfig(3, 4, [2, 9]))
    wrong: list[dict[str, Any]] = [{"components": 0}, {"identity_dims": 0}, {"rows": [3, 3]}]
    for bad in wrong:
        with pytest.raises(ValueError):
            DisplacementConfig(**bad)
