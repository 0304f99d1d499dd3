"""Control baselines on small arrays."""

import weakref

import numpy as np
import pytest

from metrics.scoring.control_baselines import (
    delayed,
    fit_energy,
    log_energy,
    mean_displacement,
    mean_trajectory,
    static_frames,
    wrong_audio,
    wrong_samples,
)


def test_static_frames():
    frame = np.zeros((4, 4, 3), np.uint8)
    assert len(list(static_frames(frame, 3))) == 3


def test_mean_displacement_repeats_the_last_value_of_short_clips():
    curve = mean_displacement([np.array([[0.0], [2.0]]), np.array([[4.0], [4.0], [8.0], [0.0]])])
    np.testing.assert_allclose(curve[:, 0], [2, 3, 5, 1])
    np.testing.assert_allclose(mean_trajectory(curve, 0, 2)[:, 0], [2, 3])
    np.testing.assert_allclose(mean_trajectory(curve, 0, 6)[:, 0], [2, 3, 5, 1, 1, 1])
    np.testing.assert_allclose(mean_trajectory(curve, 2, 3)[:, 0], [5, 1, 1])
    np.testing.assert_allclose(mean_trajectory(curve, 7, 2)[:, 0], [1, 1])
    with pytest.raises(ValueError, match="at least one clip"):
        mean_displacement([])


def test_controls_keep_few_clips_in_memory():
    rng = np.random.default_rng(0)
    energies, references = [rng.normal(-4, 2, n) for n in range(30, 42)], []

    def targets():
        for e in energies:
            assert sum(target() is not None for target in references) <= 2
            target = np.repeat(e[:, None], 2, axis=1)
            references.append(weakref.ref(target))
            yield target

    assert mean_displacement(targets()).shape == (41, 2)
    assert len(references) == 12
    fitted = fit_energy(energies, targets(), alpha=1e-6)
    np.testing.assert_allclose(fitted(energies[0])[:, 0], energies[0], atol=1e-4)


def test_delayed_repeats_the_first_value():
    np.testing.assert_array_equal(delayed(np.arange(8)), [0, 0, 0, 0, 0, 0, 1, 2])
    np.testing.assert_array_equal(delayed(np.arange(3)), [0, 0, 0])


def test_wrong_audio_is_a_cycle_and_avoids_the_same_sentence():
    order = wrong_audio(["a", "a", "b", "b"])  # shift 1 would leave two clips their own sentence
    assert order == [2, 3, 0, 1]
    assert sorted(wrong_audio(list("abcde"))) == list(range(5))
    assert all(i != j for i, j in enumerate(wrong_audio(["same"] * 3)))
    with pytest.raises(ValueError, match="two clips"):
        wrong_audio(["alone"])


def test_the_other_clips_sound_is_taken_from_the_same_frame():
    samples = np.repeat(np.arange(10), 640)  # the number of the frame
    for start, frames, heard in (
        (0, 4, [0, 1, 2, 3]),
        (3, 4, [3, 4, 5, 6]),
        (6, 4, [6, 7, 8, 9]),
        (8, 4, [6, 7, 8, 9]),  # ends too early: as late as it can
        (5, 12, list(range(10))),  # shorter than the scored frames
    ):
        np.testing.assert_array_equal(wrong_samples(samples, start, frames)[::640], heard)


def test_log_energy_closed_form():
    samples = np.concatenate([np.full(640, 0.5), np.zeros(640), np.full(100, 1.0)]).astype(np.float32)
    expected = np.log([1e-4 + 0.5, 1e-4, 1e-4 + np.sqrt(100 / 640), 1e-4])
    np.testing.assert_allclose(log_energy(samples, 4), expected)
    assert len(log_energy(samples, 1)) == 1


def test_energy_recovers_a_linear_relation_and_matches_scikit_learn():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    energies = [rng.normal(-4, 2, n) for n in (40, 70)]
    targets = [np.stack([2 * e + 1, -e], axis=1).reshape(len(e), 1, 2) for e in energies]
    exact = fit_energy(energies, targets, alpha=1e-6, context=2)
    np.testing.assert_allclose(exact(energies[0]), targets[0], atol=1e-4)
    ridge = fit_energy(energies, targets, alpha=10.0, context=1)
    every = np.concatenate(energies)
    pads = [np.pad((e - every.mean()) / every.std(), 1, mode="edge") for e in energies]
    x = np.concatenate([np.stack([p[:-2], p[1:-1], p[2:]], axis=1) for p in pads])
    expected = Ridge(alpha=10.0).fit(x, np.concatenate(targets).reshape(-1, 2)).predict(x[:40])
    np.testing.assert_allclose(ridge(energies[0]).reshape(-1, 2), expected, atol=1e-5)
