"""Windows that walk through whole clips with the net's state carried from one to the next."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from test_train import FEATURES, parts, toy_clips

from scripts.runtime import RunError, compose, resolve, start
from scripts.train_stage1 import _train
from trajectory.augment import AugmentConfig
from trajectory.dataset import WindowSampler, read_clip
from trajectory.displacement import TrajectoryError
from trajectory.models import TrajectoryConfig, TrajectoryNet
from trajectory.train import train
from trajectory.walk import ClipWalk, begun, handed_on

pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN = AugmentConfig(warp=0, gain=0, tilt=0, noise=0)


def _walk(folder, length=12, batch=3, augmentation=PLAIN, **more):
    return ClipWalk(toy_clips(folder), FEATURES, augmentation, batch=batch, length=length, seed=3, **more)


def test_a_lane_goes_through_a_clip_and_then_begins_another(tmp_path):
    walk = _walk(tmp_path)  # clips of 30 frames: windows of 12, 12 and 6
    batches = [next(walk) for _ in range(6)]
    for lane in range(3):
        places = [batch.places[lane] for batch in batches]
        assert [first for _, first in places] == [0, 12, 24, 0, 12, 24]
        assert len({clip.name for clip, _ in places[:3]}) == len({clip.name for clip, _ in places[3:]}) == 1
        assert [bool(batch.fresh[lane]) for batch in batches if batch.fresh is not None] == [1, 0, 0, 1, 0, 0]
    assert [batch.mask.sum() for batch in batches] == [36, 36, 18] * 2
    names = {clip.name for batch in batches for clip, _ in batch.places}
    assert len(names) > 1


def test_a_rest_of_one_frame_is_left_out(tmp_path):
    walk = _walk(tmp_path, length=29)
    assert [next(walk).places[0][1] for _ in range(2)] == [0, 0]


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_carried_windows_give_what_the_whole_clip_gives(tmp_path, cell):
    torch.manual_seed(0)
    config = TrajectoryConfig(
        cell=cell, bidirectional=False, channels=4, audio_dim=16, hidden=16, decoder=32, layers=2
    )
    net = TrajectoryNet(config, (FEATURES.rows, FEATURES.width), 3, 2).eval()
    torch.nn.init.normal_(cast(torch.nn.Linear, net.decoder[-1]).weight)
    walk, identity, state = _walk(tmp_path), torch.randn(3, 3), None
    found = []
    for _ in range(6):
        batch = next(walk)
        out, state = net(torch.from_numpy(batch.values), identity, begun(state, batch.fresh))
        state = handed_on(state)
        assert all(
            not cast(torch.Tensor, part).requires_grad
            for part in (state if isinstance(state, tuple) else [state])
        )
        found.append((out.detach(), batch))
    for lane in range(3):
        for clip_windows in (found[:3], found[3:]):
            clip = clip_windows[0][1].places[lane][0]
            pieces = [out[lane][torch.from_numpy(batch.mask[lane])] for out, batch in clip_windows]
            whole = net(torch.from_numpy(read_clip(clip, FEATURES).values), identity[lane : lane + 1])[0][0]
            torch.testing.assert_close(torch.cat(pieces), whole, atol=1e-5, rtol=1e-5)


def test_one_voice_for_the_whole_clip(tmp_path):
    walk = _walk(tmp_path, augmentation=AugmentConfig(warp=0, gain=1, tilt=0, noise=0))
    plain = _walk(tmp_path)
    shifts = []
    for _ in range(6):
        varied, same = next(walk), next(plain)
        shifts.append((varied.values - same.values)[0, 0, 0, 0])
        np.testing.assert_allclose((varied.values - same.values)[0, :6], shifts[-1], atol=1e-5)
    np.testing.assert_allclose(shifts[:3], shifts[0], atol=1e-5)
    np.testing.assert_allclose(shifts[3:], shifts[3], atol=1e-5)
    assert abs(shifts[0] - shifts[3]) > 1e-3


def test_two_processes_walk_the_lanes_of_one(tmp_path):
    whole = _walk(tmp_path, batch=4, augmentation=AugmentConfig())
    halves = [_walk(tmp_path, batch=2, augmentation=AugmentConfig(), rank=rank, world=2) for rank in range(2)]
    for _ in range(4):
        expected, found = next(whole), [next(half) for half in halves]
        np.testing.assert_array_equal(np.concatenate([b.values for b in found]), expected.values)
        np.testing.assert_array_equal(np.concatenate([b.d for b in found]), expected.d)


def _walking(folder, **changes: Any) -> dict[str, Any]:
    pieces = parts(folder, **changes)
    config = TrajectoryConfig(
        channels=4, audio_dim=16, hidden=16, decoder=32, dropout=0.1, bidirectional=False
    )
    torch.manual_seed(1)
    space, old = pieces["space"], pieces["sampler"]
    net = TrajectoryNet(config, (FEATURES.rows, FEATURES.width), space.identity_dims, 2)
    walk = ClipWalk(old.clips, FEATURES, AugmentConfig(), batch=4, length=12, seed=3)
    return pieces | {"net": net, "sampler": walk}


def test_training_resumes_bit_for_bit_in_the_middle_of_clips(tmp_path):
    train(**_walking(tmp_path), folder=tmp_path / "stopped", stop_at=10)
    state = torch.load(tmp_path / "stopped" / "state.pt", weights_only=True)
    assert any(start for _, start in state["sampler"]["lanes"]) and state["carried"].abs().sum() > 0
    resumed = train(**_walking(tmp_path), folder=tmp_path / "stopped")
    whole = train(**_walking(tmp_path), folder=tmp_path / "whole")
    for found, expected in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_checkpoint_without_lanes_is_not_gone_on_with(tmp_path):
    walking = _walking(tmp_path)
    drawn = WindowSampler(walking["sampler"].clips, FEATURES, AugmentConfig(), batch=4, length=12, seed=3)
    walking["sampler"] = drawn
    train(**walking, folder=tmp_path / "run", stop_at=5)
    with pytest.raises(TrajectoryError, match="carry"):
        train(**_walking(tmp_path), folder=tmp_path / "run")


@pytest.mark.parametrize("words", [[], ["trajectory=conv", "trajectory.bidirectional=false"]])
def test_only_a_net_that_hands_on_its_state_can_carry_it(tmp_path, words):
    config = resolve(compose(["windows.carry=true", f"results_dir={tmp_path}", *words]))
    with pytest.raises(RunError, match=r"windows\.carry=true needs"):
        _train(config, start(config, quiet=True), toy_clips(tmp_path), tmp_path)
