"""Stage 1 learns, validates, calibrates, and goes on exactly where a kill left it."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from audio.features import AudioFeatures, FeatureConfig
from trajectory.augment import AugmentConfig
from trajectory.calibrate import LARGEST_GAIN, Report, gain_of, validate
from trajectory.dataset import TrajectoryClip, WindowSampler, offsets_of, read_clip, store_features
from trajectory.displacement import DisplacementConfig, TrajectoryError, fit_space
from trajectory.losses import ImageTerm, LossConfig
from trajectory.models import TrajectoryConfig, TrajectoryNet
from trajectory.predict import load_trajectory, predict
from trajectory.train import TrainConfig, learning_rate, train

FEATURES = FeatureConfig(n_mels=40, context_ms=120)
ROWS, DIM = 4, 8


pytestmark = pytest.mark.usefixtures("one_thread")


def toy_clips(folder, frames=30, splits=("train", "train", "val")):
    """Latents driven by the loudness of two bands of otherwise random feature rows."""
    made = []
    axes = np.random.default_rng(99).standard_normal((2, ROWS, DIM))
    for n, split in enumerate(splits):
        rng = np.random.default_rng(n)
        step, rows = FEATURES.rows_per_frame, FEATURES.rows
        track = np.cumsum(rng.standard_normal((frames + 2, 2)), 0)
        track = (track - track.mean(0)) / track.std(0)
        values_JM = 0.1 * rng.standard_normal(((frames + 2) * step, 40))
        values_JM[:, :20] += np.repeat(track[:, :1], step, 0)
        values_JM[:, 20:] += np.repeat(track[:, 1:], step, 0)
        windows = np.stack([values_JM[t * step : t * step + rows] for t in range(frames)]).astype(np.float32)
        w_ref = rng.standard_normal((ROWS, DIM)).astype(np.float32)
        paths = folder / f"w{n}.safetensors", folder / f"x{n}.safetensors"
        w = w_ref + np.tensordot(track[1:-1], axes, 1)
        save_file({"w": w.astype(np.float16), "w_ref": w_ref}, paths[0])
        store_features(AudioFeatures(windows), FEATURES, paths[1])
        made.append(TrajectoryClip(f"clip{n}", f"s{n}", split, frames, *paths))
    return made


def parts(folder, **changes: Any) -> dict[str, Any]:
    """Everything `train` takes, small: net, space, sampler, validation clips, train config, loss config."""
    clips = toy_clips(folder)
    torch.manual_seed(1)
    space = fit_space(
        offsets_of(clips[:2], 1000),
        np.random.default_rng(5).standard_normal((20, ROWS, DIM)),
        DisplacementConfig(2, 3),
    )
    config = TrajectoryConfig(channels=4, audio_dim=16, hidden=16, decoder=32, dropout=0.1)
    net = TrajectoryNet(config, (FEATURES.rows, FEATURES.width), space.identity_dims, 2)
    sampler = WindowSampler(clips[:2], FEATURES, AugmentConfig(), batch=4, length=12, seed=3)
    settings = {"steps": 20, "lr": 5e-3, "warmup": 5, "val_every": 5, "save_every": 5, "ema": 0.9}
    return {
        "net": net,
        "space": space,
        "sampler": sampler,
        "validation": clips[2:],
        "config": TrainConfig(**settings | changes),
        "losses": LossConfig(image=0),
    }


def test_it_overfits_a_tiny_clip_and_follows_an_unheard_one(tmp_path):
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
    assert (
        torch.equal(saved.gain, model.gain) and len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
    )


SCRIPT = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import torch
torch.set_num_threads(1)
from pathlib import Path
from typing import Any
from test_train import parts, train
folder = Path({folder!r})
train(**parts(folder, steps=100000), folder=folder / "killed")
"""


def test_killed_and_resumed_is_bit_identical(tmp_path):
    here = Path(__file__).resolve()
    script = SCRIPT.format(root=str(here.parents[1]), tests=str(here.parent), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.DEVNULL)
    checkpoint, deadline = tmp_path / "killed" / "state.pt", time.monotonic() + 300
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    reached = torch.load(checkpoint, weights_only=True)["step"]
    goal = reached + 10
    resumed = train(**parts(tmp_path, steps=100000), folder=tmp_path / "killed", stop_at=goal)
    whole = train(**parts(tmp_path, steps=100000), folder=tmp_path / "whole", stop_at=goal)
    assert reached >= 5
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    one, two = (torch.load(tmp_path / run / "state.pt", weights_only=True) for run in ("whole", "killed"))
    assert one["step"] == two["step"] == goal and one["best_score"] == two["best_score"]
    assert all(torch.equal(one["net"][k], two["net"][k]) for k in one["net"])
    assert torch.equal(one["torch_rng"], two["torch_rng"]) and one["numpy_rng"] == two["numpy_rng"]


def test_another_model_is_not_resumed(tmp_path):
    train(**parts(tmp_path, steps=5), folder=tmp_path / "run")
    rest = parts(tmp_path, steps=10)
    config = TrajectoryConfig(channels=4, audio_dim=16, hidden=24)
    rest["net"] = TrajectoryNet(config, (FEATURES.rows, FEATURES.width), 3, 2)
    with pytest.raises(TrajectoryError, match=r"net\.hidden was 16, is 24.*resume=none"):
        train(**rest, folder=tmp_path / "run")
    train(**rest, folder=tmp_path / "run", resume=None)
    (tmp_path / "run" / "state.pt").write_bytes(b"cut short")
    with pytest.raises(TrajectoryError, match="cut short"):
        train(**rest, folder=tmp_path / "run")


def test_a_longer_schedule_may_be_resumed(tmp_path):
    train(**parts(tmp_path, steps=5), folder=tmp_path / "run")
    train(**parts(tmp_path, steps=10), folder=tmp_path / "run")
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 10


def test_the_image_term_is_logged_when_due(tmp_path):
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

    rest = parts(tmp_path, steps=6)
    rest["losses"] = LossConfig(image_every=3, image_size=16)
    train(**rest, folder=tmp_path / "run", image_term=ImageTerm(Flat(), perceptual))
    assert calls == [(1, 3, 16, 16)] * 2


def test_without_validation_clips_the_last_average_is_exported(tmp_path):
    rest = parts(tmp_path, steps=5)
    rest["validation"] = []
    model = train(**rest, folder=tmp_path / "run")
    assert torch.equal(model.gain, torch.ones(2)) and (tmp_path / "run" / "trajectory.safetensors").is_file()


def test_learning_rate_rises_then_falls_to_its_end():
    config = TrainConfig(steps=100, warmup=10, lr=1.0, lr_end=0.1)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
    with pytest.raises(ValueError):
        TrainConfig(steps=0)


def report(correlation, predicted, truth=(1.0, 1.0)):
    return Report(np.array(correlation), np.array(predicted), np.array(truth), np.ones(2), 0.0)


def test_gain_undoes_the_shrinkage_of_regression():
    assert gain_of(report([0.8, 0.0], [0.8, 0.1]), "scalar").tolist() == pytest.approx([1.25, 1.25])
    assert gain_of(report([0.8, 0.0], [0.8, 0.1]), "components").tolist() == pytest.approx([1.16, 1.0])
    assert gain_of(report([0.8, 0.5], [0.8, 0.5]), "none").tolist() == [1.0, 1.0]
    assert gain_of(report([0.9, 0.9], [0.1, 0.1]), "scalar").tolist() == [LARGEST_GAIN] * 2
    assert gain_of(report([-0.5, -0.5], [0.5, 0.5]), "scalar").tolist() == [1.0, 1.0]
    assert gain_of(report([0.9, 0.9], [2.0, 2.0]), "components").tolist() == [1.0, 1.0]
