"""Prediction with a trained stage 1: speech + identity latent -> W+ of every frame, whole clips or frame by frame.

Shapes: N clips, T video frames, K feature rows in a window, M bins, L rows of W+, D = 512, C coefficients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audio.features import AudioFeatures, FeatureConfig
from stylegan2.weights import fitting, read_weights, save_weights
from trajectory.model.displacement import DisplacementSpace, TrajectoryError
from trajectory.model.recurrent_net import State, TrajectoryConfig, TrajectoryNet

KIND = "trajectory"
ASSETS = Path(__file__).parents[1] / "assets"
RETIRED = ("kernel", "heads", "context")  # removed settings that older files still contain


def shipped_stage1(streaming: bool = False) -> Path:
    """The file of the stage-1 model that comes with the project (docs/models/stage1.md); streaming: of the one for live
    sound.
    """
    return ASSETS / ("stage1_streaming.safetensors" if streaming else "stage1.safetensors")


class TrajectoryPredictor(nn.Module):
    """The complete stage-1 model from speech to W+: net, frozen projections, feature settings and gain.

        w_t = w_ref + decode(gain * c_t),    c_t = net(x)_t [+ shortcut(x_t)]

    gain: (C,) buffer, fitted on the validation split (trajectory.training.amplitude_calibration).
    shortcut: a linear layer from a frame's own window to the coefficients, only in a model that was adapted to one
    person (trajectory.adapt.personal_adaptation).
    lip_axis: (C,) buffer, reads the lips' opening from coefficients (trajectory.losses.lip_loss); None if the model was
    trained without landmarks.
    """

    gain: Tensor
    lip_axis: Tensor | None

    def __init__(
        self,
        net: TrajectoryNet,
        space: DisplacementSpace,
        features: FeatureConfig,
        shortcut: bool = False,
        lip_axis: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.net, self.space, self.features = net, space, features
        width = features.rows * features.width
        self.shortcut = nn.Linear(width, space.num_coefficients) if shortcut else None
        self.register_buffer("gain", torch.ones(space.num_coefficients))
        self.register_buffer("lip_axis", lip_axis)

    def forward(self, values_NTKM: Tensor, w_ref_NLD: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Windows and identity latents -> (w (N, T, L, D), recurrent state)."""
        c_NTC, state = self.coefficients(values_NTKM, w_ref_NLD, state)
        return w_ref_NLD[:, None] + self.space.decode(self.gain * c_NTC), state

    def coefficients(
        self, values_NTKM: Tensor, w_ref_NLD: Tensor, state: State = None
    ) -> tuple[Tensor, State]:
        """Coefficients (N, T, C) before the gain."""
        c_NTC, state = self.net(values_NTKM, self.space.identity(w_ref_NLD), state)
        if self.shortcut is not None:
            c_NTC = c_NTC + self.shortcut(values_NTKM.flatten(2))
        return c_NTC, state


@torch.no_grad()
def predict(model: TrajectoryPredictor, features: AudioFeatures, w_ref_LD: np.ndarray) -> np.ndarray:
    """w (T, L, D) float32 for a whole utterance.

    Raises TrajectoryError for features or a latent of another shape than the model was trained on.
    """
    device = model.gain.device
    _check(model, features.values.shape[1:], w_ref_LD.shape)
    values_NTKM = torch.from_numpy(features.values)[None].to(device)
    w_ref_NLD = torch.tensor(w_ref_LD, dtype=torch.float32)[None].to(device)
    return model.eval()(values_NTKM, w_ref_NLD)[0][0].float().cpu().numpy()


@torch.no_grad()
def stream(
    model: TrajectoryPredictor, windows: Iterable[np.ndarray], w_ref_LD: np.ndarray
) -> Iterator[np.ndarray]:
    """Feature windows (K, M) one by one -> w (L, D) one by one, equal to `predict` on the whole.

    Raises TrajectoryError as `demand_live` does.
    """
    demand_live(model)
    model.eval()
    device, state = model.gain.device, None
    w_ref_NLD = torch.tensor(w_ref_LD, dtype=torch.float32)[None].to(device)
    for window_KM in windows:
        _check(model, window_KM.shape, w_ref_LD.shape)
        values_NTKM = torch.tensor(window_KM, dtype=torch.float32)[None, None].to(device)
        w_NTLD, state = model(values_NTKM, w_ref_NLD, state)
        yield w_NTLD[0, 0].float().cpu().numpy()


def demand_live(model: TrajectoryPredictor) -> None:
    """Raises TrajectoryError for a model that needs the whole clip: in both directions, or with features that depend on
    all of the sound.
    """
    if model.net.config.bidirectional or model.features.lookahead_ms is None:
        raise TrajectoryError(
            "This stage-1 model needs the whole clip: for live sound use stage1.source=streaming, or train one with "
            "trajectory.bidirectional=false and audio=whisper_live (or audio.normalise=fixed)."
        )


def save_trajectory(
    model: TrajectoryPredictor,
    path: str | Path,
    notes: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Writes a .safetensors file: weights, projections and gain as tensors (half: in float16), all settings as metadata."""
    config = {
        "net": asdict(model.net.config),
        "space": model.space.layout(),
        "features": asdict(model.features),
    }
    if model.shortcut is not None:
        config["shortcut"] = True
    if model.lip_axis is not None:
        config["lip_axis"] = True
    save_weights(model, path, KIND, config, notes, half)


def load_trajectory(path: str | Path, device: str | torch.device = "cpu") -> TrajectoryPredictor:
    """Rebuilds a predictor from its file alone. Raises WeightsError or TrajectoryError with the file's name."""
    file = read_weights(path)
    if file.kind != KIND:
        raise TrajectoryError(
            f"{path} holds a {file.kind!r}, expected a stage-1 trajectory (scripts/train_stage1.py)"
        )
    fitting(lambda: _built(file.config), file, path, "train it again")
    model = _built(file.config)  # built again, because `fitting` builds on the meta device, without memory
    model.load_state_dict(file.state)
    return model.to(device).eval()


def _built(config: Mapping[str, Any]) -> TrajectoryPredictor:
    settings = dict(config["features"])
    if "layer" in settings:  # in older files
        settings["layers"] = (settings.pop("layer"),)
    features = FeatureConfig(**settings)
    space = DisplacementSpace.from_layout(config["space"])
    net_config = TrajectoryConfig(**{k: v for k, v in config["net"].items() if k not in RETIRED})
    window = (features.rows, features.width)
    net = TrajectoryNet(net_config, window, space.identity_dims, space.num_coefficients)
    lip_axis = torch.zeros(space.num_coefficients) if config.get("lip_axis") else None
    return TrajectoryPredictor(net, space, features, config.get("shortcut", False), lip_axis)


def _check(model: TrajectoryPredictor, window: tuple[int, ...], latent: tuple[int, ...]) -> None:
    expected = (model.features.rows, model.features.width)
    if tuple(window) != expected:
        raise TrajectoryError(f"feature windows are {tuple(window)}, the model was trained on {expected}")
    if tuple(latent) != (model.space.num_rows, model.space.w_dim):
        raise TrajectoryError(
            f"the identity latent is {tuple(latent)}, the model was trained on "
            f"{(model.space.num_rows, model.space.w_dim)}: use the generator size it was trained with"
        )
