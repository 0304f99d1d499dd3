"""Stage 1's losses against closed forms."""

from typing import Any

import numpy as np
import pytest
import torch

from trajectory.losses.lip_loss import RIDGE, fit_lip_axis, lip_loss
from trajectory.losses.stage1_losses import LossConfig, latent_loss, stage1_losses, weighted_sum
from trajectory.model.displacement import DisplacementConfig, TrajectoryError, fit_space

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, DIM = 4, 8
ALL = torch.ones(2, 5, dtype=torch.bool)  # a mask without padding


def space(components=6):
    d = np.random.default_rng(0).standard_normal((50, ROWS, DIM)).astype(np.float32)
    return fit_space(d, d, DisplacementConfig(components, 3))


def test_no_distance_to_itself():
    w = torch.randn(2, 5, ROWS, DIM)
    assert latent_loss(w, w, ALL) == 0


def test_latent_loss_is_the_mean_of_norms():
    w, off = torch.randn(2, 5, ROWS, DIM), torch.zeros(2, 5, ROWS, DIM)
    off[0, 1, 0, 0], off[0, 1, 1, 1] = 3.0, 4.0
    assert latent_loss(w + off, w, ALL).item() == pytest.approx(5 / 10, rel=1e-5)


def test_padding_does_not_count():
    w = torch.randn(1, 4, ROWS, DIM)
    far = w.clone()
    far[:, 2:] += 100
    mask = torch.tensor([[True, True, False, False]])
    assert latent_loss(far, w, mask) == 0


def test_inside_the_basis_both_spaces_are_the_same_distance():
    s = space()
    predicted, truth, mask = torch.randn(2, 5, 6), torch.randn(2, 5, 6), torch.ones(2, 5, dtype=torch.bool)
    d = s.decode(truth)
    w, basis = (stage1_losses(predicted, d, mask, s, LossConfig(space=x))["latent"] for x in ("w", "basis"))
    assert w.item() == pytest.approx(basis.item(), rel=1e-3)


def test_noise_outside_the_basis_counts_in_w_only():
    s = space()
    truth, mask = torch.randn(2, 5, 6), torch.ones(2, 5, dtype=torch.bool)
    noise = torch.randn(2, 5, ROWS * DIM)
    outside = noise - noise @ s.offset_axes.T @ s.offset_axes
    d = s.decode(truth) + outside.unflatten(-1, (ROWS, DIM))
    assert stage1_losses(s.encode(d), d, mask, s, LossConfig(space="basis"))["latent"] < 1e-3
    assert stage1_losses(s.encode(d), d, mask, s, LossConfig(space="w"))["latent"] > 0.1


def test_the_sum_weighs_each_loss_by_the_setting_of_its_name():
    config = LossConfig(latent=0.5, image=2.0, lip=3.0)
    losses = {"latent": torch.tensor(1.0), "lip": torch.tensor(10.0), "image": torch.tensor(100.0)}
    assert weighted_sum(losses, config) == 0.5 + 30 + 200
    s, mask = space(), torch.ones(1, 5, dtype=torch.bool)
    predicted, d = torch.randn(1, 5, 6), s.decode(torch.randn(1, 5, 6))
    assert list(stage1_losses(predicted, d, mask, s, config, torch.ones(6))) == ["latent", "lip"]
    assert list(stage1_losses(predicted, d, mask, s, config)) == ["latent"]


def test_at_which_steps_frames_are_rendered():
    assert [LossConfig(image_every=3).renders_at(step) for step in range(4)] == [True, False, False, True]
    assert not LossConfig(image=0).renders_at(0) and not LossConfig(image_every=0).renders_at(0)
    wrong: list[dict[str, Any]] = [{"latent": -1}, {"lip": -1}, {"image_size": 8}, {"image_every": -1}]
    for bad in wrong:
        with pytest.raises(ValueError):
            LossConfig(**bad)


def test_the_lip_axis_is_recovered():
    rng = np.random.default_rng(0)
    axis = np.array([0.5, -1.0, 0.0, 2.0])
    clips = [
        (c := rng.standard_normal((300, 4)), c @ axis + k) for k in range(3)
    ]  # each clip has its own mean opening
    np.testing.assert_allclose(fit_lip_axis(clips), axis, atol=0.05)


def test_the_lip_axis_of_few_frames_is_the_same_ridge_regression():
    rng = np.random.default_rng(1)
    c, o = rng.standard_normal((5, 12)), rng.standard_normal(5)
    x, y = c - c.mean(0), o - o.mean()
    expected = np.linalg.solve(x.T @ x + RIDGE * 5 * np.eye(12), x.T @ y)
    np.testing.assert_allclose(fit_lip_axis([(c, o)]), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(TrajectoryError, match="no face was found"):
        fit_lip_axis([(c[:0], o[:0])])


def test_lip_loss_is_one_minus_the_correlation():
    rng = np.random.default_rng(2)
    truth, predicted = torch.from_numpy(rng.standard_normal((2, 3, 40, 5)).astype(np.float32))
    axis = torch.tensor([1.0, 0.5, 0.0, 0.0, -1.0])
    r = [
        np.corrcoef((t @ axis).numpy(), (p @ axis).numpy())[0, 1]
        for t, p in zip(truth, predicted, strict=True)
    ]
    mask = torch.ones(3, 40, dtype=torch.bool)
    assert lip_loss(predicted, truth, axis, mask).item() == pytest.approx(1 - np.mean(r), abs=1e-4)
    # The loss depends on timing, not on size.
    assert lip_loss(3 * truth + 1, truth, axis, mask).item() == pytest.approx(0, abs=1e-4)
    assert lip_loss(-truth, truth, axis, mask).item() == pytest.approx(2, abs=1e-4)


def test_lip_loss_with_amplitude_is_least_at_the_true_amplitude():
    truth = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 20, 2)).astype(np.float32))
    axis, mask = torch.tensor([1.0, -0.5]), torch.ones(2, 20, dtype=torch.bool)
    losses = {scale: lip_loss(scale * truth + 1, truth, axis, mask, True).item() for scale in (0.5, 1.0, 2.0)}
    assert losses[1.0] == pytest.approx(0, abs=2e-3)
    assert losses[0.5] == pytest.approx(1 - 2 * 0.5 / 1.25, abs=2e-3)
    assert losses[2.0] == pytest.approx(1 - 2 * 2 / 5, abs=2e-3)


def test_lip_loss_ignores_padding_and_still_lips():
    rng = np.random.default_rng(3)
    truth = torch.from_numpy(rng.standard_normal((1, 20, 2)).astype(np.float32))
    predicted = truth.clone()
    predicted[:, 12:] = -5
    mask = torch.arange(20)[None] < 12
    assert lip_loss(predicted, truth, torch.ones(2), mask).item() == pytest.approx(0, abs=1e-4)
    still = torch.zeros(1, 20, 2, requires_grad=True)
    loss = lip_loss(still, torch.zeros(1, 20, 2), torch.ones(2), mask)
    loss.backward()
    assert loss.item() == 1 and still.grad is not None and (still.grad == 0).all()
