"""The compact e4e encoder and its weight file; the viseme basis."""

import numpy as np
import pytest
import torch
from small_encoders import SMALL_COMPACT, small_generator

from encoders.bases.viseme_basis import AXES, HEAD_AXES, load_viseme_basis
from encoders.bases.viseme_fit import (
    BasisConfig,
    calibrated,
    draw_expressions,
    fit_basis,
    in_all_rows,
    start_directions,
)
from encoders.bases.viseme_targets import FITTED, axis_targets
from encoders.features.landmark_net import LandmarkNet, shifted
from encoders.geometry import aperture
from encoders.networks.e4e_compact import CompactE4E, load_encoder, save_encoder
from stylegan2.networks.generator import StyleGAN2
from stylegan2.weights import WeightsError, save_weights


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    return small_generator(32)


def test_an_untrained_encoder_gives_its_rows_around_w_avg() -> None:
    w_avg = torch.randn(16)
    encoder = CompactE4E(SMALL_COMPACT, w_avg)
    base, deltas = encoder.split(torch.randn(2, 3, 256, 256))
    assert deltas.shape == (2, 8, 16) and (deltas == 0).all(), "deltas start at zero, as in e4e"
    torch.testing.assert_close(encoder(torch.zeros(1, 3, 256, 256)).shape, torch.Size([1, 8, 16]))
    assert base.shape == (2, 16)


def test_weight_file_rebuilds_the_encoder_and_others_are_refused(tmp_path) -> None:
    encoder = CompactE4E(SMALL_COMPACT, torch.randn(16)).eval()
    save_encoder(encoder, tmp_path / "e.safetensors", {}, half=False)
    x = torch.randn(1, 3, 256, 256)
    torch.testing.assert_close(load_encoder(tmp_path / "e.safetensors")(x), encoder(x))
    save_weights(encoder, tmp_path / "g.safetensors", "stylegan2", {})
    with pytest.raises(WeightsError, match="not an encoder"):
        load_encoder(tmp_path / "g.safetensors")


def test_a_shifted_face_has_shifted_landmarks() -> None:
    """The landmark on a white dot moves with the picture."""
    image = torch.zeros(1, 3, 128, 128)
    image[0, :, 80:83, 40:43] = 1
    points = torch.full((1, 68, 2), 0.0)
    points[0, :, 0], points[0, :, 1] = 41 * 2 + 0.5, 81 * 2 + 0.5
    out, moved = shifted(image, points, torch.Generator().manual_seed(2))
    y, x = np.unravel_index(int(out[0, 0].argmax()), (128, 128))
    assert np.abs(moved[0, 0].numpy() - np.array([2 * x + 0.5, 2 * y + 0.5])).max() < 4


def test_basis_fit_moves_only_its_rows(generator: StyleGAN2) -> None:
    torch.manual_seed(0)
    net = LandmarkNet(8).eval().requires_grad_(False)
    net.mean.copy_(256 * torch.rand(68, 2))
    config = BasisConfig(rows=(3, 6), steps=3, batch=2, people=12)
    known = torch.randn(len(AXES), 8, 16)
    known[AXES.index("blink")] = 0.1
    moving = start_directions(known, config)
    losses = list(fit_basis(generator, net, moving, config))
    assert len(losses) == 3 and all(np.isfinite(list(loss.values())).all() for loss in losses)
    directions = in_all_rows(moving, generator, config)
    assert directions.shape == (len(FITTED), 8, 16)
    assert (directions[:, :3] == 0).all() and (directions[:, 7:] == 0).all() and directions[:, 3:7].any()
    assert calibrated(generator, net, directions, config).norm() >= directions.norm()
    people = list(draw_expressions(generator, known, 2, 4, np.random.default_rng(0)))
    assert people[0].shape == (4, 8, 16) and not torch.allclose(people[0][0], people[0][1])


def test_axes_that_are_not_fitted_stay_as_they_were(generator: StyleGAN2) -> None:
    torch.manual_seed(0)
    net = LandmarkNet(8).eval().requires_grad_(False)
    net.mean.copy_(256 * torch.rand(68, 2))
    known, lids = torch.randn(len(AXES), 8, 16), torch.full((8, 16), 0.1)
    config = BasisConfig(rows=(3, 6), steps=2, batch=2, people=12, axes=("wide", "blink"))
    known[AXES.index("blink")] = lids
    moving = start_directions(known, config)
    assert not moving[FITTED.index("wide")].any() and torch.equal(moving[FITTED.index("blink")], lids[3:7])
    list(fit_basis(generator, net, moving, config))
    fitted = calibrated(generator, net, in_all_rows(moving, generator, config), config)
    for k, axis in enumerate(FITTED):
        assert torch.equal(fitted[k, 3:7], known[k, 3:7]) == (axis not in config.axes)
    with pytest.raises(ValueError, match="it may hold open"):
        BasisConfig(axes=("jaw",))


def test_targets_open_the_mouth_by_a_third_of_the_eye_distance() -> None:
    face = np.zeros((68, 2))
    face[36:42], face[42:48] = (-50, 0), (50, 0)
    face[60:68, 1] = 60
    opened = face + 100 * axis_targets()[AXES.index("open")].numpy()
    assert aperture(opened) == pytest.approx(0.33, abs=0.01)


def test_embedded_basis() -> None:
    basis = load_viseme_basis()
    assert basis.names == AXES and basis.directions.shape == (len(AXES), 14, 512)
    moving = np.abs(basis.directions).max(2) > 0
    for axis, rows in zip(AXES, moving, strict=True):
        low, high = (0, 3) if axis in HEAD_AXES else (3, 7)
        assert not rows[:low].any() and rows[high] and not rows[high + 1 :].any()
    weights = np.eye(len(AXES))[:2]
    np.testing.assert_allclose(basis.displacement(weights), basis.directions[:2])
