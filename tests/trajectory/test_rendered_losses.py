"""Losses on rendered frames: each reaches the model, falls on a toy problem, and looks at what it says it looks at."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from audio.sync.lip_sync_net import WINDOW, LipSyncNet, SyncConfig, mouth_windows, sound_windows
from audio.waveform import Waveform
from encoders.features.mouth_crop import mouth_picture
from encoders.lmd import mouth_distance
from encoders.records import FrameClip
from stylegan2.images import resize, to_tensor, to_uint8
from trajectory.data.windows import TrajectoryClip
from trajectory.losses.rendered_losses import RenderedTerms, lip_distance, mouth_crop, mouth_motion, sync_loss
from trajectory.losses.stage1_losses import LossConfig
from trajectory.model.displacement import DisplacementConfig, TrajectoryError, fit_space
from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, DIM, FRAMES, FIRST, LENGTH = 2, 4, 12, 2, 9
OFF: dict[str, Any] = {"image": 0.0}


class Pictures(torch.nn.Module):
    """Image = the latent's numbers times fixed smooth pictures, 32 px."""

    num_rows, w_dim, resolution, w_avg = ROWS, DIM, 32, torch.zeros(DIM)

    def __init__(self):
        super().__init__()
        coarse = torch.randn(ROWS * DIM, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        self.pictures = torch.nn.Parameter(0.3 * resize(coarse, 32))

    def mapping(self, z):
        return z

    def synthesis(self, w, noise="const"):
        return torch.einsum("nk,kchw->nchw", w.flatten(1), self.pictures)


class Points(torch.nn.Module):
    """68 points that move with the picture."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3 * 64, 136, generator=torch.Generator().manual_seed(1)))

    def forward(self, x):
        return (resize(x, 8).flatten(1) @ self.weight).unflatten(1, (68, 2))


def l1(x, y):
    return (x - y).abs().mean((1, 2, 3))


@pytest.fixture(scope="module")
def tools() -> dict[str, Any]:
    torch.manual_seed(0)
    sync = LipSyncNet(SyncConfig(channels=(8, 8, 8, 8), dim=8))
    return {"generator": Pictures(), "perceptual": l1, "landmarks": Points(), "sync": sync}


@pytest.fixture(scope="module")
def space() -> Any:
    d = np.random.default_rng(0).standard_normal((50, ROWS, DIM)).astype(np.float32)
    return fit_space(d, d, DisplacementConfig(6, 3))


@pytest.fixture(scope="module")
def place(tools, space, tmp_path_factory) -> tuple[TrajectoryClip, int]:
    """A clip of what the generator makes of some displacements, with bursts of noise, and the window's first frame."""
    folder = tmp_path_factory.mktemp("clip")
    w = torch.randn(FRAMES, ROWS, DIM, generator=torch.Generator().manual_seed(3))
    frames = to_uint8(resize(tools["generator"].synthesis(w), 256))
    sound = np.random.default_rng(0).standard_normal(FRAMES * 640) * np.repeat([0.01, 0.2] * 6, 640)
    clip = FrameClip(
        name="a/one",
        speaker="a",
        sentence="one",
        split="train",
        source="one.mp4",
        source_hash="0" * 64,
        frames=frames,
        landmarks=np.zeros((FRAMES, 68, 2), np.float32),
        quads=np.zeros((FRAMES, 4, 2), np.float32),
        detected=np.ones(FRAMES, bool),
        waveform=sound.astype(np.float32),
    )
    clip.save(folder / "one.safetensors")
    nowhere = folder / "none"
    return TrajectoryClip("a/one", "a", "train", FRAMES, nowhere, nowhere, folder / "one.safetensors"), FIRST


def terms(losses: LossConfig, tools, space, place, c, d=None, seed=0) -> dict[str, torch.Tensor]:
    d = space.decode(torch.ones_like(c)) if d is None else d
    mask = torch.ones(c.shape[:2], dtype=torch.bool)
    w_ref = torch.zeros(len(c), ROWS, DIM)
    rendered = RenderedTerms(**tools, losses=losses)
    return rendered(c, d, w_ref, mask, space, np.random.default_rng(seed), [place] * len(c))


ALL = ["image", "mouth", "landmark", "sync"]


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_reaches_the_model_and_no_network_that_it_is_seen_through(name, tools, space, place):
    torch.manual_seed(0)
    net = TrajectoryNet(TrajectoryConfig(channels=4, audio_dim=8, hidden=8, decoder=8), (12, 40), 3, 6)
    c, _ = net(torch.randn(1, LENGTH, 12, 40), torch.randn(1, 3))
    c = c + torch.randn(1, LENGTH, 6)  # an untrained net does not move, and a still mouth has no sync
    weights: dict[str, Any] = OFF | {name: 1.0}
    found = terms(LossConfig(**weights), tools, space, place, c)
    assert list(found) == [name] and found[name].isfinite()
    found[name].backward()
    last: Any = net.decoder[-1]
    assert last.weight.grad is not None and last.weight.grad.abs().max() > 0
    for part in tools.values():
        assert not isinstance(part, torch.nn.Module) or all(p.grad is None for p in part.parameters())


@pytest.mark.parametrize(
    ("name", "real"), [(name, real) for name in ALL[:3] for real in (False, True)] + [("sync", False)]
)
def test_it_falls_on_a_toy_problem(name, real, tools, space, place):
    torch.manual_seed(1)
    c = torch.randn(1, LENGTH, 6, requires_grad=True)
    optimiser, seen = torch.optim.Adam([c], lr=0.1), []
    for _ in range(25):
        losses = LossConfig(**OFF | {name: 1.0, "real_target": real})
        loss = terms(losses, tools, space, place, c)[name]  # the same frame each time
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    assert seen[-1] < 0.7 * seen[0]


def test_the_targets_are_the_inverted_frame_or_the_real_one(tools, space, place):
    c, d = torch.randn(1, LENGTH, 6), torch.randn(1, LENGTH, ROWS, DIM)
    clip, first = place
    frames = FrameClip.load(clip.frames).frames
    drawn = np.random.default_rng(5)
    drawn.integers(1)
    t = int(drawn.integers(LENGTH))
    made = tools["generator"].synthesis(space.decode(c[:, t]))
    true = {False: tools["generator"].synthesis(d[:, t]), True: to_tensor(np.asarray(frames[first + t]))}
    for real, image in true.items():
        losses = LossConfig(image_size=32, mouth=1.0, real_target=real)
        found = terms(losses, tools, space, place, c, d, seed=5)
        assert found["image"].item() == pytest.approx(l1(made, resize(image, 32)).item(), rel=1e-5)
        assert found["mouth"].item() == pytest.approx(
            l1(mouth_crop(made), mouth_crop(image)).item(), rel=1e-5
        )


def test_only_frames_that_are_there_are_drawn(tools, space, place):
    c = torch.randn(2, 5, 6, requires_grad=True)
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[:, 0] = True
    rendered = RenderedTerms(**tools, losses=LossConfig(sync=1.0))
    d, w_ref = torch.zeros(2, 5, ROWS, DIM), torch.randn(2, ROWS, DIM)
    found = rendered(c, d, w_ref, mask, space, np.random.default_rng(0), [place] * 2)
    assert list(found) == ["image"]  # one frame is too short for sync
    found["image"].backward()
    assert c.grad is not None and c.grad[:, 0].any() and not c.grad[:, 1:].any()


def test_no_distance_to_itself(tools, space, place):
    c = torch.randn(1, LENGTH, 6)
    found = terms(LossConfig(mouth=1.0, landmark=1.0), tools, space, place, c, space.decode(c))
    assert all(value.item() == pytest.approx(0, abs=1e-5) for value in found.values())


def test_the_mouth_s_motion_and_distance_are_the_ones_that_are_measured():
    rng = np.random.default_rng(0)
    frames = np.clip(128 + 30 * rng.standard_normal((8, 16, 16, 3)), 0, 255).astype(np.uint8)
    frames = frames.repeat(16, 1).repeat(16, 2)
    mouths = np.stack([mouth_picture(frame) for frame in frames])
    ours = mouth_motion(to_tensor(frames))
    assert ours.shape == (8 - WINDOW + 1, WINDOW, 48, 48)
    assert np.allclose(ours.numpy(), mouth_windows(mouths), atol=0.05)  # whole grey levels there
    a, b = rng.standard_normal((2, 3, 68, 2)).astype(np.float32)
    ours = lip_distance(torch.from_numpy(a), torch.from_numpy(b))
    assert np.allclose(ours.numpy(), mouth_distance(a, b), atol=1e-5)


def test_sync_is_one_minus_the_cosine_with_the_sound_of_the_same_frames(tools, space, place):
    c = torch.randn(1, LENGTH, 6)
    found = terms(LossConfig(**OFF | {"sync": 1.0, "sync_frames": 7}), tools, space, place, c, seed=4)["sync"]
    drawn = np.random.default_rng(4)
    drawn.integers(1)
    t, net = int(drawn.integers(LENGTH - 7 + 1)), tools["sync"]
    clip = FrameClip.load(place[0].frames)
    sounds = sound_windows(Waveform(np.asarray(clip.waveform)), FRAMES, net.sizes)[FIRST + t :][:3]
    made = tools["generator"].synthesis(space.decode(c[0, t : t + 7]))
    assert found.item() == pytest.approx(sync_loss(made, torch.from_numpy(sounds), net).item(), rel=1e-4)
    assert 0 <= found.item() <= 2


def test_a_clip_without_frames_is_named(tools, space, place):
    nameless = (replace(place[0], frames=None), 0)
    with pytest.raises(TrajectoryError, match="a/one names no file"):
        terms(LossConfig(real_target=True), tools, space, nameless, torch.randn(1, LENGTH, 6))
