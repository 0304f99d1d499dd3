"""Stage 1 learns, validates, calibrates, and goes on exactly where a kill left it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from matplotlib.figure import Figure
from safetensors.numpy import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from audio.features import AudioFeatures, FeatureConfig
from encoders.content_hash import keyed_fields
from stylegan2.networks.generator import StyleGAN2
from stylegan2.render import render
from trajectory.data.augmentation import AugmentConfig
from trajectory.data.windows import TrajectoryClip, WindowSampler, offsets_of, read_clip, store_features
from trajectory.losses.rendered_losses import RenderedTerms
from trajectory.losses.stage1_losses import LossConfig
from trajectory.model.displacement import DisplacementConfig, TrajectoryError, fit_space
from trajectory.model.predictor import load_trajectory, predict
from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet
from trajectory.mouth_judge import MouthJudge
from trajectory.training.amplitude_calibration import LARGEST_GAIN, Report, gain_of, validate
from trajectory.training.preview import Illustrator, Pictures
from trajectory.training.stage1_loop import TrainConfig, learning_rate, train

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
from test_stage1_loop import parts, train
folder = Path({folder!r})
train(**parts(folder, steps=100000), folder=folder / "killed")
"""


def test_killed_and_resumed_is_bit_identical(tmp_path):
    here = Path(__file__).resolve()
    script = SCRIPT.format(root=str(here.parents[2]), tests=str(here.parent), folder=str(tmp_path))
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
    train(**rest, folder=tmp_path / "run", rendered=RenderedTerms(Flat(), rest["losses"], perceptual))
    assert calls == [(1, 3, 16, 16)] * 2


def test_without_validation_clips_the_last_average_is_exported(tmp_path):
    rest = parts(tmp_path, steps=5)
    rest["validation"] = []
    model = train(**rest, folder=tmp_path / "run")
    assert torch.equal(model.gain, torch.ones(2)) and (tmp_path / "run" / "trajectory.safetensors").is_file()


class Worse:
    """A judge for whom the third validation is the best and all later ones are worse."""

    def __init__(self, made=0):
        self.made = made

    def __call__(self, net, space):
        self.made += 1
        return abs(self.made - 3) + 1.0


def stopping(folder) -> dict[str, Any]:
    return parts(folder, steps=100, val_every=2, save_every=3, select="lmd_mouth", patience=2)


def test_training_ends_when_validation_no_longer_improves(tmp_path):
    model = train(**stopping(tmp_path), folder=tmp_path / "run", mouth_judge=cast(Any, Worse()))
    content = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert content["step"] == 10 and content["waited"] == 2 and content["best_score"] == -1  # the 6th step's
    assert (tmp_path / "run" / "trajectory.safetensors").is_file()
    assert all(torch.equal(value, content["best"][key]) for key, value in model.net.state_dict().items())
    assert not all(torch.equal(content["ema"][key], content["best"][key]) for key in content["ema"])


def test_a_resumed_run_ends_as_early(tmp_path):
    """It was stopped between two validations that brought nothing better, and again after the last."""
    folder = tmp_path / "cut"
    train(**stopping(tmp_path), folder=folder, mouth_judge=cast(Any, Worse()), stop_at=9)
    assert not (folder / "trajectory.safetensors").exists()
    resumed = train(**stopping(tmp_path), folder=folder, mouth_judge=cast(Any, Worse(4)))
    whole = train(**stopping(tmp_path), folder=tmp_path / "whole", mouth_judge=cast(Any, Worse()))
    again = train(**stopping(tmp_path), folder=folder, mouth_judge=cast(Any, Worse(5)))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]) and torch.equal(
            value, again.state_dict()[key]
        ), key
    assert torch.load(folder / "state.pt", weights_only=True)["step"] == 10


def test_a_gradient_that_is_not_finite_is_one_sentence(tmp_path):
    pieces = parts(tmp_path)
    train(**pieces, folder=tmp_path / "run", stop_at=5)
    pieces = parts(tmp_path)
    next(iter(pieces["net"].parameters())).register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrajectoryError, match=r"diverged at step 6: lower train\.lr"):
        train(**pieces, folder=tmp_path / "run")
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 5


def test_the_lip_axis_goes_with_the_space_that_it_was_fitted_in(tmp_path):
    pieces, axes = parts(tmp_path), [np.array([1.0, 2.0], np.float32), np.array([-3.0, 5.0], np.float32)]
    train(**pieces, folder=tmp_path / "run", lip_axis=axes[0], stop_at=5)
    seen = []

    def look(net, space, axis):
        seen.append(axis.tolist())
        return Pictures(np.zeros((2, 2, 3), np.uint8), Figure())

    pieces = parts(tmp_path, pictures_every=1)
    train(**pieces, folder=tmp_path / "run", lip_axis=axes[1], illustrator=cast(Any, look), stop_at=6)
    assert seen == [[1.0, 2.0]]


def test_validation_points_survive_a_resumed_run(tmp_path):
    for stop in (10, 20):
        train(**parts(tmp_path), folder=tmp_path / "run", stop_at=stop)
    logged = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in logged.Scalars("val/score")] == [5, 10, 15, 20]


def test_how_often_is_written_is_no_part_of_the_recipe():
    assert keyed_fields(TrainConfig()) == keyed_fields(TrainConfig(log_every=3, save_every=7))


def test_what_chose_the_best_weights_so_far_may_not_change(tmp_path):
    train(**parts(tmp_path, steps=5), folder=tmp_path / "run")
    with pytest.raises(TrajectoryError, match="select was correlation, is lmd_mouth"):
        train(**stopping(tmp_path), folder=tmp_path / "run", mouth_judge=cast(Any, Worse()))
    with pytest.raises(ValueError, match="mouth_judge"):
        train(**stopping(tmp_path), folder=tmp_path / "other")


def test_the_mouth_judge_measures_rendered_lips(tmp_path):
    """In px between what the landmark network reads from both frames; 0 for a net that predicts the truth."""

    class Picture:
        num_rows, w_dim, resolution, w_avg = ROWS, DIM, 16, torch.zeros(DIM)
        rendered = 0

        def synthesis(self, w, noise="const"):
            self.rendered += len(w)
            return w[:, :3, :1, None].expand(-1, -1, 16, 16)

    def landmarks(x):
        """Lip point k is (x k, 0) where the picture has level x: a mouth that is x times as wide."""
        return torch.stack([x[:, 0, 0, :1] * torch.arange(68.0), torch.zeros(len(x), 68)], dim=2)

    pieces, generator = parts(tmp_path), Picture()
    space, clips = pieces["space"], pieces["validation"]
    judge = MouthJudge(cast(Any, generator), landmarks, clips, FEATURES, frames=5)

    class Knows(torch.nn.Module):
        def __init__(self, shift=0.0):
            super().__init__()
            self.shift = shift

        def forward(self, values, identity):
            return space.encode(torch.from_numpy(read_clip(clips[0], FEATURES).d)) + self.shift, None

    assert judge(Knows(), space) == pytest.approx(0, abs=0.2) and generator.rendered == 10
    far = judge(Knows(1.0), space)
    assert generator.rendered == 15  # the truth is rendered once
    level = float(
        space.decode(torch.ones(1, 1, 2))[0, 0, 0, 0] - space.decode(torch.zeros(1, 1, 2))[0, 0, 0, 0]
    )
    k = np.arange(20.0)
    assert far == pytest.approx(abs(level) * np.abs(k - k.mean()).mean(), rel=0.1)


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
    with pytest.raises(ValueError):
        TrainConfig(steps=0)
    wrong: list[dict[str, Any]] = [{"select": "loss"}, {"patience": -1}, {"val_frames": 0}]
    for bad in wrong:
        with pytest.raises(ValueError):
            TrainConfig(**bad)


def report(correlation, predicted, truth=(1.0, 1.0)):
    return Report(np.array(correlation), np.array(predicted), np.array(truth), np.ones(2), 0.0)


def test_gain_undoes_the_shrinkage_of_regression():
    assert gain_of(report([0.8, 0.0], [0.8, 0.1]), "scalar").tolist() == pytest.approx([1.25, 1.25])
    assert gain_of(report([0.8, 0.0], [0.8, 0.1]), "components").tolist() == pytest.approx([1.16, 1.0])
    assert gain_of(report([0.8, 0.5], [0.8, 0.5]), "none").tolist() == [1.0, 1.0]
    assert gain_of(report([0.9, 0.9], [0.1, 0.1]), "scalar").tolist() == [LARGEST_GAIN] * 2
    assert gain_of(report([-0.5, -0.5], [0.5, 0.5]), "scalar").tolist() == [1.0, 1.0]
    assert gain_of(report([0.9, 0.9], [2.0, 2.0]), "components").tolist() == [1.0, 1.0]


def test_pictures_of_a_validation_clip_go_to_tensorboard(tmp_path):
    torch.manual_seed(0)
    generator = StyleGAN2(8, z_dim=DIM, w_dim=DIM, channels={4: 8, 8: 8}, mapping_layers=1).eval()
    pieces = parts(tmp_path, pictures_every=10)
    clip, axis = pieces["validation"][0], np.array([1.0, -1.0], np.float32)
    illustrator = Illustrator(generator, pieces["validation"], FEATURES)
    train(**pieces, folder=tmp_path / "run", lip_axis=axis, illustrator=illustrator)
    logged = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert [event.step for event in logged.Images("pictures/strip")] == [10, 20]
    assert [event.step for event in logged.Images("pictures/opening")] == [10, 20]

    pictures = illustrator(pieces["net"], pieces["space"], torch.from_numpy(axis))
    assert pictures.strip.shape == (2 * 8, 8 * 6, 3)
    batch = read_clip(clip, FEATURES)
    last = next(iter(render(generator, batch.w_ref[0][None] + batch.d[0, -1:])))
    np.testing.assert_array_equal(pictures.strip[:8, -8:], last)
    true, predicted = pictures.opening.axes[0].lines
    expected = pieces["space"].encode(torch.from_numpy(batch.d))[0].numpy() @ axis
    np.testing.assert_allclose(np.asarray(true.get_ydata()), expected - expected.mean(), atol=1e-5)
    assert len(np.asarray(predicted.get_ydata())) == clip.num_frames


def test_a_checkpoint_from_before_a_setting_existed_goes_on(tmp_path):
    train(**parts(tmp_path), folder=tmp_path / "run", stop_at=10)
    path = tmp_path / "run" / "state.pt"
    content = torch.load(path, weights_only=True)
    signature = json.loads(content["signature"])
    del signature["features"]["encoder_sha256"], signature["net"]["kernel"], signature["carry"]
    torch.save(content | {"signature": json.dumps(signature)}, path)
    model = train(**parts(tmp_path), folder=tmp_path / "run")
    whole = train(**parts(tmp_path), folder=tmp_path / "whole")
    for resumed, expected in zip(model.state_dict().values(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(resumed, expected, rtol=0, atol=0)
