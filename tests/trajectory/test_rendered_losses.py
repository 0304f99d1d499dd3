"""L_lpips: only the model gets a gradient, the loss decreases on a toy problem, and its target is the chosen frame."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from encoders.records import FrameClip
from stylegan2.images import resize, to_tensor, to_uint8
from trajectory.data.windows import TrajectoryClip
from trajectory.losses.rendered_losses import RenderedLoss
from trajectory.losses.stage1_losses import LossConfig
from trajectory.model.displacement import DisplacementConfig, TrajectoryError, fit_space
from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, DIM, FRAMES, FIRST, LENGTH = 2, 4, 12, 2, 9


class LinearGenerator(torch.nn.Module):
    """Image = the latent's numbers times fixed smooth images, 32 px."""

    num_rows, w_dim, resolution, w_avg = ROWS, DIM, 32, torch.zeros(DIM)

    def __init__(self):
        super().__init__()
        coarse = torch.randn(ROWS * DIM, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        self.images = torch.nn.Parameter(0.3 * resize(coarse, 32))

    def mapping(self, z):
        return z

    def synthesis(self, w, noise="const"):
        return torch.einsum("nk,kchw->nchw", w.flatten(1), self.images)


def l1(x, y):
    return (x - y).abs().mean((1, 2, 3))


@pytest.fixture(scope="module")
def generator() -> LinearGenerator:
    return LinearGenerator()


@pytest.fixture(scope="module")
def space() -> Any:
    d = np.random.default_rng(0).standard_normal((50, ROWS, DIM)).astype(np.float32)
    return fit_space(d, d, DisplacementConfig(6, 3))


@pytest.fixture(scope="module")
def place(generator, tmp_path_factory) -> tuple[TrajectoryClip, int]:
    """A clip of frames that the generator renders from some displacements, and the window's first frame."""
    folder = tmp_path_factory.mktemp("clip")
    w = torch.randn(FRAMES, ROWS, DIM, generator=torch.Generator().manual_seed(3))
    clip = FrameClip(
        name="a/one",
        speaker="a",
        sentence="one",
        split="train",
        source="one.mp4",
        source_hash="0" * 64,
        frames=to_uint8(resize(generator.synthesis(w), 256)),
        landmarks=np.zeros((FRAMES, 68, 2), np.float32),
        quads=np.zeros((FRAMES, 4, 2), np.float32),
        detected=np.ones(FRAMES, bool),
        waveform=np.zeros(FRAMES * 640, np.float32),
    )
    clip.save(folder / "one.safetensors")
    nowhere = folder / "none"
    return TrajectoryClip("a/one", "a", "train", FRAMES, nowhere, nowhere, folder / "one.safetensors"), FIRST


def image_loss(losses: LossConfig, generator, space, place, c, d=None, seed=0) -> torch.Tensor:
    d = space.decode(torch.ones_like(c)) if d is None else d
    mask = torch.ones(c.shape[:2], dtype=torch.bool)
    w_ref = torch.zeros(len(c), ROWS, DIM)
    rendered = RenderedLoss(generator, losses, l1)
    return rendered(c, d, w_ref, mask, space, np.random.default_rng(seed), [place] * len(c))


def test_the_gradient_reaches_the_model_and_not_the_generator(generator, space, place):
    torch.manual_seed(0)
    net = TrajectoryNet(TrajectoryConfig(channels=4, audio_dim=8, hidden=8, decoder=8), (12, 40), 3, 6)
    c, _ = net(torch.randn(1, LENGTH, 12, 40), torch.randn(1, 3))
    loss = image_loss(LossConfig(), generator, space, place, c)
    assert loss.isfinite()
    loss.backward()
    last: Any = net.decoder[-1]
    assert last.weight.grad is not None and last.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in generator.parameters())


@pytest.mark.parametrize("real", [False, True])
def test_the_loss_decreases_on_a_toy_problem(real, generator, space, place):
    torch.manual_seed(1)
    c = torch.randn(1, LENGTH, 6, requires_grad=True)
    optimiser, values = torch.optim.Adam([c], lr=0.1), []
    for _ in range(25):
        loss = image_loss(
            LossConfig(real_target=real), generator, space, place, c
        )  # the same frame each time
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]


@pytest.mark.parametrize("real", [False, True])
def test_the_target_is_the_inverted_frame_or_the_cameras(real, generator, space, place):
    c, d = torch.randn(1, LENGTH, 6), torch.randn(1, LENGTH, ROWS, DIM)
    clip, first = place
    rng = np.random.default_rng(5)
    rng.integers(1)
    t = int(rng.integers(LENGTH))
    predicted = generator.synthesis(space.decode(c[:, t]))
    camera = to_tensor(np.asarray(FrameClip.load(clip.frames).frames[first + t]))
    target = camera if real else generator.synthesis(d[:, t])
    loss = image_loss(LossConfig(image_size=32, real_target=real), generator, space, place, c, d, seed=5)
    assert loss.item() == pytest.approx(l1(predicted, resize(target, 32)).item(), rel=1e-5)


def test_only_frames_inside_the_mask_are_drawn(generator, space, place):
    c = torch.randn(2, 5, 6, requires_grad=True)
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[:, 0] = True
    rendered = RenderedLoss(generator, LossConfig(), l1)
    d, w_ref = torch.zeros(2, 5, ROWS, DIM), torch.randn(2, ROWS, DIM)
    rendered(c, d, w_ref, mask, space, np.random.default_rng(0), [place] * 2).backward()
    assert c.grad is not None and c.grad[:, 0].any() and not c.grad[:, 1:].any()


def test_no_distance_to_itself(generator, space, place):
    c = torch.randn(1, LENGTH, 6)
    loss = image_loss(LossConfig(), generator, space, place, c, space.decode(c))
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_a_clip_without_frames_is_named(generator, space, place):
    nameless = (replace(place[0], frames=None), 0)
    with pytest.raises(TrajectoryError, match="a/one has no file"):
        image_loss(LossConfig(real_target=True), generator, space, nameless, torch.randn(1, LENGTH, 6))
