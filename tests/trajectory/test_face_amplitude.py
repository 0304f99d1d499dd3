"""Gain and shift of the lips for a face without speech of its own, against a generator whose response is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio.features import FeatureConfig
from trajectory.adapt.face_amplitude import REACH, FaceAmplitude, face_amplitude, with_amplitude
from trajectory.model.displacement import DisplacementConfig, fit_space
from trajectory.model.predictor import TrajectoryPredictor, load_trajectory, save_trajectory
from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet

ROWS, DIM, C = 3, 4, 6
FEATURES = FeatureConfig(n_mels=8, context_ms=40)
W_REF = np.zeros((ROWS, DIM), np.float32)


@pytest.fixture
def model() -> TrajectoryPredictor:
    rng = np.random.default_rng(0)
    space = fit_space(
        rng.standard_normal((80, ROWS, DIM)), rng.standard_normal((20, ROWS, DIM)), DisplacementConfig(C, 3)
    )
    torch.manual_seed(0)
    net = TrajectoryNet(
        TrajectoryConfig(channels=4, audio_dim=8, hidden=8, decoder=16),
        (FEATURES.rows, FEATURES.width),
        space.identity_dims,
        C,
    )
    last: Any = net.decoder[-1]
    torch.nn.init.normal_(last.weight)  # an untrained model predicts no motion
    axis = torch.from_numpy(0.05 * rng.standard_normal(C)).float()
    return TrajectoryPredictor(net, space, FEATURES, lip_axis=axis).eval()


def rendering(model: TrajectoryPredictor, slope: float, level: float):
    """Frames whose lips open `slope` times as far as the codes say, and `level` at the identity latent."""
    assert model.lip_axis is not None
    axis_C, rest = model.lip_axis, model.space.encode(torch.zeros(ROWS, DIM))

    def opening(w_KLD: np.ndarray) -> np.ndarray:
        c_KC = model.space.encode(torch.from_numpy(w_KLD - W_REF)) - rest
        return level + slope * (c_KC @ axis_C).numpy()

    return opening


def test_the_identity_frame_gets_the_pictures_opening_and_the_lips_their_full_movement(model):
    rendered = rendering(model, slope=0.8, level=0.02)
    amplitude = face_amplitude(model, W_REF, 0.06, rendered)
    assert amplitude.gain == pytest.approx(1.25, abs=1e-3)
    assert 0.02 + 0.8 * amplitude.shift == pytest.approx(0.06, abs=1e-3)
    changed = with_amplitude(model, amplitude)
    values, w = torch.randn(1, 30, FEATURES.rows, FEATURES.width), torch.from_numpy(W_REF)[None]
    before, after = (rendered(m(values, w)[0][0].detach().numpy()) for m in (model, changed))
    assert after.std() == pytest.approx(1.25 * before.std(), rel=1e-3)


def test_lips_that_already_move_as_far_stay(model):
    amplitude = face_amplitude(model, W_REF, 0.02, rendering(model, slope=1.0, level=0.02))
    assert amplitude.gain == pytest.approx(1, abs=1e-3) and amplitude.shift == pytest.approx(0, abs=1e-4)
    wide = face_amplitude(model, W_REF, 0.02, rendering(model, slope=1.5, level=0.02))
    assert wide.gain == 1.0  # never less than predicted


def test_both_are_limited_and_without_faces_nothing_changes(model):
    assert model.lip_axis is not None
    deviation = float(model.lip_axis.norm())
    amplitude = face_amplitude(model, W_REF, 9.0, rendering(model, slope=0.01, level=0.0))
    assert amplitude.gain == REACH and amplitude.shift == pytest.approx(REACH * deviation)
    nobody = face_amplitude(model, W_REF, 0.1, lambda w: np.full(len(w), np.nan))
    assert nobody == FaceAmplitude()


def test_the_given_model_stays_and_the_changed_one_can_be_saved(model, tmp_path: Path):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    changed = with_amplitude(model, FaceAmplitude(1.5, 0.02))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    save_trajectory(changed, tmp_path / "x.safetensors")
    values, w = torch.randn(1, 4, FEATURES.rows, FEATURES.width), torch.from_numpy(W_REF)[None]
    loaded = load_trajectory(tmp_path / "x.safetensors")
    torch.testing.assert_close(loaded(values, w)[0], changed(values, w)[0])
