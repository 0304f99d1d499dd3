"""Training of stage 1: it fits, validates, stops early, and resumes exactly after a kill."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_stage1 import DIM, FEATURES, ROWS, parts

from audio.features import AudioFeatures
from encoders.content_hash import keyed_fields
from trajectory.data.augmentation import AugmentConfig
from trajectory.data.windows import read_clip
from trajectory.losses.rendered_losses import RenderedLoss
from trajectory.losses.stage1_losses import LossConfig
from trajectory.model.displacement import TrajectoryError
from trajectory.model.predictor import load_trajectory, predict
from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet
from trajectory.training import stage1_loop
from trajectory.training.amplitude_calibration import validate
from trajectory.training.preview import Preview
from trajectory.training.stage1_loop import train
from trajectory.training.train_config import TrainConfig, learning_rate

pytestmark = pytest.mark.usefixtures("one_thread")


def test_training_overfits_a_tiny_clip_and_generalises_to_another(tmp_path):
    changes = {"steps": 150, "val_every": 50, "save_every": 150, "lr": 1e-2, "ema": 0.95}
    pieces = parts(tmp_path, **changes)
    space, sampler, validation = pieces["space"], pieces["sampler"], pieces["validation"]
    sampler.augmentation = AugmentConfig(warp=0, gain=0, tilt=0, noise=0)
    model = train(**pieces, folder=tmp_path / "run")
    for clip, least in ((sampler.clips[0], 0.97), (validation[0], 0.9)):
        report = validate(model.net, space, FEATURES, [clip])
        assert report.score > least, clip.name
        batch = read_clip(clip, FEATURES)
        w = predict(model, AudioFeatures(batch.values[0]), batch.w_ref[0])
        assert np.corrcoef((w - batch.w_ref[0]).ravel(), batch.d[0].ravel())[0, 1] > 0.9
    saved = load_trajectory(tmp_path / "run" / "trajectory.safetensors")
    assert torch.equal(saved.gain, model.gain)
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


SCRIPT = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import torch
torch.set_num_threads(1)
from pathlib import Path
from toy_stage1 import parts
from trajectory.training.stage1_loop import train
folder = Path({folder!r})
train(**parts(folder, steps=100000), folder=folder / "killed")
"""


def test_killed_and_resumed_is_bit_identical(tmp_path):
    tests = Path(__file__).resolve().parents[1]
    script = SCRIPT.format(root=str(tests.parent), tests=str(tests), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.DEVNULL)
    checkpoint, deadline = tmp_path / "killed" / "state.pt", time.monotonic() + 300
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    reached = torch.load(checkpoint, weights_only=True)["step"]
    goal = reached + 10
    resumed = train(**parts(tmp_path, steps=100000), folder=tmp_path / "killed", stop_at=goal)
    uninterrupted = train(**parts(tmp_path, steps=100000), folder=tmp_path / "whole", stop_at=goal)
    assert reached >= 5
    for name, value in uninterrupted.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    one, two = (torch.load(tmp_path / run / "state.pt", weights_only=True) for run in ("whole", "killed"))
    assert one["step"] == two["step"] == goal
    assert one["progress"]["best_score"] == two["progress"]["best_score"]
    assert all(torch.equal(one["net"][k], two["net"][k]) for k in one["net"])
    assert torch.equal(one["random"], two["random"]) and one["rng"] == two["rng"]


def test_another_model_is_not_resumed(tmp_path):
    train(**parts(tmp_path, steps=5), folder=tmp_path / "run")
    inputs = parts(tmp_path, steps=10)
    config = TrajectoryConfig(channels=4, audio_dim=16, hidden=24)
    inputs["net"] = TrajectoryNet(config, (FEATURES.rows, FEATURES.width), 3, 2)
    with pytest.raises(ValueError, match=r"net\.hidden was 16, is 24.*resume=none"):
        train(**inputs, folder=tmp_path / "run")
    train(**inputs, folder=tmp_path / "run", resume=None)


def test_a_longer_schedule_may_be_resumed(tmp_path):
    train(**parts(tmp_path, steps=5), folder=tmp_path / "run")
    train(**parts(tmp_path, steps=10), folder=tmp_path / "run")
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 10


def test_the_image_term_is_computed_at_its_steps(tmp_path):
    class Flat(torch.nn.Module):
        num_rows, w_dim, resolution, w_avg = ROWS, DIM, 16, torch.zeros(DIM)

        def synthesis(self, w, noise="const"):
            return w[:, 0, :3, None, None].expand(-1, -1, 16, 16)

        def mapping(self, z):
            return z

    calls = []

    def perceptual(x, y):
        calls.append(x.shape)
        return (x - y).abs().mean((1, 2, 3))

    inputs = parts(tmp_path, steps=6)
    inputs["losses"] = LossConfig(image_every=3, image_size=16)
    train(**inputs, folder=tmp_path / "run", rendered=RenderedLoss(Flat(), inputs["losses"], perceptual))
    assert calls == [(1, 3, 16, 16)] * 2


def test_without_validation_clips_the_last_average_is_exported(tmp_path):
    inputs = parts(tmp_path, steps=5)
    inputs["validation"] = []
    model = train(**inputs, folder=tmp_path / "run")
    assert torch.equal(model.gain, torch.ones(2)) and (tmp_path / "run" / "trajectory.safetensors").is_file()


def train_impatiently(
    folder: Path, run: str, monkeypatch: pytest.MonkeyPatch, validations: int = 0, **more: Any
) -> Any:
    """Trains until two consecutive validations are no better; the third validation has the best score. validations:
    number already made.
    """
    count = validations

    def scored(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        report = validate(*arguments)
        return replace(report, correlation=np.full_like(report.correlation, 1 - abs(count - 3) / 100))

    monkeypatch.setattr(stage1_loop, "validate", scored)
    pieces = parts(folder, steps=100, val_every=2, save_every=3, patience=2)
    return train(**pieces, folder=folder / run, **more)


def test_training_ends_when_validation_no_longer_improves(tmp_path, monkeypatch):
    model = train_impatiently(tmp_path, "run", monkeypatch)
    content = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    progress = content["progress"]
    assert content["step"] == 10 and progress["waited"] == 2
    assert progress["best_score"] == pytest.approx(1)  # that of step 6
    assert (tmp_path / "run" / "trajectory.safetensors").is_file()
    assert all(torch.equal(value, progress["best"][key]) for key, value in model.net.state_dict().items())
    assert not all(torch.equal(content["ema"][key], progress["best"][key]) for key in content["ema"])


def test_a_resumed_run_ends_as_early(tmp_path, monkeypatch):
    """The run was stopped between two validations without a better score, and again after the last one."""
    train_impatiently(tmp_path, "cut", monkeypatch, stop_at=9)
    assert not (tmp_path / "cut" / "trajectory.safetensors").exists()
    resumed = train_impatiently(tmp_path, "cut", monkeypatch, validations=4)
    uninterrupted = train_impatiently(tmp_path, "whole", monkeypatch)
    again = train_impatiently(tmp_path, "cut", monkeypatch, validations=5)
    for key, value in uninterrupted.net.state_dict().items():
        for other in (resumed, again):
            assert torch.equal(value, other.net.state_dict()[key]), key
    assert torch.load(tmp_path / "cut" / "state.pt", weights_only=True)["step"] == 10


def test_a_gradient_that_is_not_finite_is_one_sentence(tmp_path):
    pieces = parts(tmp_path)
    train(**pieces, folder=tmp_path / "run", stop_at=5)
    pieces = parts(tmp_path)
    next(iter(pieces["net"].parameters())).register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrajectoryError, match=r"diverged at step 6: lower train\.lr"):
        train(**pieces, folder=tmp_path / "run")
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 5


def test_a_resumed_run_keeps_the_lip_axis_of_its_projections(tmp_path):
    axes, axes_drawn = [np.array([1.0, 2.0], np.float32), np.array([-3.0, 5.0], np.float32)], []
    train(**parts(tmp_path), folder=tmp_path / "run", lip_axis=axes[0], stop_at=5)

    def preview(net, space, axis):
        axes_drawn.append(axis.tolist())
        return Preview(np.zeros((2, 2, 3), np.uint8), Figure())

    pieces = parts(tmp_path, pictures_every=1)
    train(**pieces, folder=tmp_path / "run", lip_axis=axes[1], preview=cast(Any, preview), stop_at=6)
    assert axes_drawn == [[1.0, 2.0]]


def test_validation_points_survive_a_resumed_run(tmp_path):
    for stop in (10, 20):
        train(**parts(tmp_path), folder=tmp_path / "run", stop_at=stop)
    logged = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in logged.Scalars("val/score")] == [5, 10, 15, 20]


def test_mixed_precision_trains_and_exports_float32(tmp_path):
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    model = train(**parts(tmp_path, steps=4), folder=tmp_path / "run", fabric=fabric)
    plain = train(**parts(tmp_path, steps=4), folder=tmp_path / "plain")
    for key, value in model.net.state_dict().items():
        other = plain.net.state_dict()[key]
        assert value.dtype == other.dtype and torch.allclose(value, other, atol=0.05), key
    assert any(not torch.equal(v, plain.net.state_dict()[k]) for k, v in model.net.state_dict().items())


def test_learning_rate_rises_then_falls_to_its_end():
    config = TrainConfig(steps=100, warmup=10, lr=1.0, lr_end=0.1)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)


def test_settings():
    """Saving and logging intervals may change when resuming; impossible values are refused."""
    assert keyed_fields(TrainConfig()) == keyed_fields(TrainConfig(log_every=3, save_every=7))
    wrong: list[dict[str, Any]] = [{"steps": 0}, {"patience": -1}, {"lr": 0.0}]
    for bad in wrong:
        with pytest.raises(ValueError):
            TrainConfig(**bad)
