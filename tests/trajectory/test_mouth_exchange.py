"""A code gets the mouth of another one and keeps the rest."""

import numpy as np
import pytest

from encoders.bases.viseme_basis import AXES, MOUTH_AXES, VisemeBasis, load_viseme_basis
from trajectory.model.mouth_exchange import MouthExchange


@pytest.fixture
def codes():
    rng = np.random.default_rng(0)
    return rng.standard_normal((14, 512)).astype(np.float32), rng.uniform(-1, 1, (6, len(AXES))).astype(
        np.float32
    )


def test_the_mouth_is_exchanged_and_head_and_eyes_stay(codes):
    person, weights = codes
    basis = load_viseme_basis()
    assert basis.names == AXES
    own, other = weights[:3], weights[3:]
    expected = np.concatenate([other[:, : len(MOUTH_AXES)], own[:, len(MOUTH_AXES) :]], axis=1)
    exchange = MouthExchange.of(basis, 14)
    swapped = exchange(person + basis.displacement(own), person + basis.displacement(other))
    np.testing.assert_allclose(swapped, person + basis.displacement(expected), atol=1e-4)


def test_equal_mouths_change_nothing(codes):
    w = codes[0][None]
    np.testing.assert_allclose(MouthExchange.of(load_viseme_basis(), 14)(w, w), w)


def test_a_generator_with_more_rows(codes):
    rng = np.random.default_rng(1)
    basis = VisemeBasis(MOUTH_AXES, rng.standard_normal((4, 14, 512)).astype(np.float32))
    w, mouth = rng.standard_normal((2, 1, 18, 512)).astype(np.float32)
    swapped = MouthExchange.of(basis, 18)(w, mouth)
    np.testing.assert_array_equal(swapped[:, 14:], w[:, 14:])
    np.testing.assert_allclose(
        swapped[:, :14], MouthExchange.of(basis, 14)(w[:, :14], mouth[:, :14]), atol=1e-4
    )
