"""Prediction: a file alone rebuilds the model, streaming equals prediction of the whole clip, and errors are
reported.
"""

from typing import Any

import numpy as np
import pytest
import torch

from audio.features import AudioFeatures, FeatureConfig
from stylegan2.weights import WeightsError, read_weights, save_weights
from trajectory.model.displacement import DisplacementConfig, TrajectoryError, fit_space
from trajectory.model.predictor import TrajectoryPredictor, load_trajectory, predict, save_trajectory, stream
from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, DIM = 4, 8
W_REF = np.random.default_rng(2).standard_normal((ROWS, DIM)).astype(np.float32)


def predictor(normalise: Any = "fixed", **changes: Any):
    torch.manual_seed(0)
    d = np.random.default_rng(0).standard_normal((40, ROWS, DIM)).astype(np.float32)
    space = fit_space(d, d, DisplacementConfig(5, 3, [1, 3]))
    features = FeatureConfig(n_mels=40, context_ms=120, normalise=normalise)
    config = TrajectoryConfig(channels=4, audio_dim=8, hidden=8, decoder=16, **changes)
    net = TrajectoryNet(config, (features.rows, features.width), space.identity_dims, space.num_coefficients)
    last: Any = net.decoder[-1]
    torch.nn.init.normal_(last.weight)
    model = TrajectoryPredictor(net, space, features).eval()
    model.gain.fill_(1.3)
    return model


def speech(model, frames=9):
    shape = (frames, model.features.rows, model.features.width)
    return AudioFeatures(np.random.default_rng(1).standard_normal(shape).astype(np.float32))


def test_a_file_alone_rebuilds_the_predictor(tmp_path):
    model = predictor()
    save_trajectory(model, tmp_path / "trajectory.safetensors", {"steps": 1})
    again = load_trajectory(tmp_path / "trajectory.safetensors")
    w = predict(model, speech(model), W_REF)
    assert w.shape == (9, ROWS, DIM) and w.dtype == np.float32
    assert np.array_equal(predict(again, speech(model), W_REF), w)
    assert again.features == model.features and again.net.config == model.net.config


def test_a_file_with_settings_that_are_gone_is_still_read(tmp_path):
    model, path = predictor(), tmp_path / "trajectory.safetensors"
    save_trajectory(model, path)
    file = read_weights(path)
    net = file.config["net"] | {"kernel": 3, "heads": 4, "context": 24}
    save_weights(file.state, path, "trajectory", file.config | {"net": net})
    assert np.array_equal(
        predict(load_trajectory(path), speech(model), W_REF), predict(model, speech(model), W_REF)
    )


def test_rows_that_may_not_move_stay_on_the_identity():
    model = predictor()
    d = predict(model, speech(model), W_REF) - W_REF
    assert not d[:, 0].any() and not d[:, 3].any() and d[:, 1:3].any()


def test_the_gain_scales_motion_about_the_mean_displacement():
    model = predictor()
    predictions = []
    for gain in (0.0, 1.0, 2.0):
        model.gain.fill_(gain)
        predictions.append(predict(model, speech(model), W_REF))
    still, once, twice = predictions
    assert np.allclose(still, still[:1], atol=1e-6)
    assert np.allclose(twice - still, 2 * (once - still), atol=1e-4)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_frame_by_frame_equals_the_whole_clip(cell):
    model = predictor(cell=cell, bidirectional=False)
    whole_clip = predict(model, speech(model), W_REF)
    assert np.allclose(np.stack(list(stream(model, speech(model).values, W_REF))), whole_clip, atol=1e-5)


def test_a_model_that_needs_the_whole_clip_cannot_be_streamed():
    for model in (predictor(), *(predictor(kind, bidirectional=False) for kind in ("clip", "none"))):
        with pytest.raises(TrajectoryError, match="needs the whole clip"):
            next(stream(model, speech(model).values, W_REF))


def test_other_features_latents_or_files_are_refused(tmp_path):
    model = predictor()
    with pytest.raises(TrajectoryError, match="feature windows"):
        predict(model, AudioFeatures(np.zeros((3, 5, 7), np.float32)), W_REF)
    with pytest.raises(TrajectoryError, match="identity latent"):
        predict(model, speech(model), np.zeros((18, 512), np.float32))
    save_weights({"a": torch.zeros(1)}, tmp_path / "other.safetensors", "encoder", {})
    with pytest.raises(TrajectoryError, match="expected a stage-1 trajectory"):
        load_trajectory(tmp_path / "other.safetensors")


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "damaged.safetensors"
    save_trajectory(predictor(), path)
    file = read_weights(path)
    short = {key: value for key, value in file.state.items() if key != "gain"}
    net = file.config["net"]
    for state, config in (
        (file.state, {}),
        (short, file.config),
        (file.state, file.config | {"net": net | {"unknown": 1}}),
        (file.state, file.config | {"net": net | {"hidden": 10**7}}),  # it would take 10 PB
        (file.state, file.config | {"net": net | {"cell": "conv"}}),
        (file.state, file.config | {"net": net | {"identity": "film"}}),
    ):
        save_weights(state, path, "trajectory", config)
        with pytest.raises(WeightsError, match=r"damaged\.safetensors .* train it again"):
            load_trajectory(path)
