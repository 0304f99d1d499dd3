"""Windows that walk through whole clips with the net's state carried from one to the next."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from test_train import FEATURES, parts, toy_clips

from scripts.runtime import RunError, compose, resolve, start
from scripts.train_stage1 import train_stage1
from trajectory.augment import AugmentConfig
from trajectory.dataset import WindowSampler, read_clip
from trajectory.displacement import TrajectoryError
from trajectory.models import TrajectoryConfig, TrajectoryNet
from trajectory.train import train
from trajectory.walk import ClipWalk, begun, handed_on, walks_on

pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN = AugmentConfig(warp=0, gain=0, tilt=0, noise=0)


def _walk(folder, length=12, batch=3, augmentation=PLAIN, **more):
    return ClipWalk(toy_clips(folder), FEATURES, augmentation, batch=batch, length=length, seed=3, **more)


def test_a_lane_goes_through_a_clip_and_then_begins_another(tmp_path):
    walk = _walk(tmp_path, batch=8)  # clips of 30 frames: windows of 12, 12 and 6 but for a lane's first clip
    batches = [next(walk) for _ in range(9)]
    begins = set()
    for lane in range(8):
        places = [batch.places[lane] for batch in batches]
        firsts = [first for _, first in places]
        begins.add(firsts[0])
        whole = firsts.index(0, 1)
        assert firsts[:whole] == list(range(firsts[0], 29, 12))
        assert firsts[whole:] == ([0, 12, 24] * 3)[: 9 - whole]
        assert len({clip.name for clip, _ in places[:whole]}) == 1
        assert len({clip.name for clip, _ in places[whole : whole + 3]}) == 1
        fresh = [bool(batch.fresh[lane]) for batch in batches if batch.fresh is not None]
        assert fresh == [first == 0 or n == 0 for n, first in enumerate(firsts)]
        frames = [int(batch.mask[lane].sum()) for batch in batches]
        assert frames == [min(30 - first, 12) for first in firsts]
    assert len(begins) > 2 and len({clip.name for clip, _ in batches[0].places}) > 1


def test_one_band_is_masked_in_a_window(tmp_path):
    augmentation = AugmentConfig(warp=0, gain=0, tilt=0, noise=0, mask_bins=FEATURES.n_mels // 4)
    walk = _walk(tmp_path, batch=16, augmentation=augmentation)
    bands = []
    for values in next(walk).values.reshape(16, -1, FEATURES.n_mels):
        edges = np.diff(np.r_[False, (values == 0).all(0), False].astype(int))
        bands.append((edges == 1).sum())
    assert set(bands) <= {0, 1} and 1 in bands  # a second one would mostly lie elsewhere


def test_short_and_long_clips_are_walked_through_as_often(tmp_path):
    walk = _walk(tmp_path, batch=200)
    walk.share = np.array([1.0, 0.0, 0.0])  # what a window drawn anywhere goes by
    names = [clip.name for clip, _ in next(walk).places]
    assert all(40 < names.count(name) < 95 for name in ("clip0", "clip1", "clip2"))


def test_lanes_of_another_number_begin_anew(tmp_path):
    walk = _walk(tmp_path)
    next(walk)
    state, other = walk.state_dict(), _walk(tmp_path, batch=2)
    other.load_state_dict(state)
    batch = next(other)
    assert batch.fresh is not None and batch.fresh.all() and len(batch.d) == 2
    assert begun(torch.ones(1, 3, 4), batch.fresh) is None


def test_a_rest_of_one_frame_is_left_out(tmp_path):
    walk = _walk(tmp_path, length=29)
    assert [next(walk).places[0][1] for _ in range(3)][1:] == [0, 0]


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
        first = next(i for i, (_, batch) in enumerate(found) if batch.places[lane][1] == 0)
        windows = found[first : first + 3]
        clip = windows[0][1].places[lane][0]
        pieces = [out[lane][torch.from_numpy(batch.mask[lane])] for out, batch in windows]
        whole = net(torch.from_numpy(read_clip(clip, FEATURES).values), identity[lane : lane + 1])[0][0]
        torch.testing.assert_close(torch.cat(pieces), whole, atol=1e-5, rtol=1e-5)


def test_one_voice_for_the_whole_clip_and_noise_anew(tmp_path):
    loud = AugmentConfig(warp=0, gain=1, tilt=0, noise=1)
    walks = (_walk(tmp_path, augmentation=loud), _walk(tmp_path))
    changes: dict[int, list[np.ndarray]] = {}
    turn = 0
    for n in range(6):
        varied, plain = (next(walk) for walk in walks)
        turn += n > 0 and plain.places[0][1] == 0
        changes.setdefault(turn, []).append((varied.values - plain.values)[0, : int(plain.mask[0].sum())])
    shifts = {turn: [float(np.median(change)) for change in windows] for turn, windows in changes.items()}
    whole = next(windows for turn, windows in shifts.items() if turn > 0 and len(windows) == 3)
    np.testing.assert_allclose(whole, whole[0], atol=0.1)
    assert abs(shifts[0][0] - shifts[1][0]) > 0.1
    first, second = (change[:6] for change in changes[1][:2])
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2


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


def test_lanes_begin_anew_where_the_file_holds_another_process_own(tmp_path):
    """The file holds the state of one process's windows: of 4, which one process with 8 (or two with 4) cannot go on with."""
    train(**_walking(tmp_path), folder=tmp_path / "run", stop_at=10)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    state["sampler"]["lanes"] *= 2  # as two processes would have left it
    torch.save(state, tmp_path / "run" / "state.pt")
    walking = _walking(tmp_path)
    walking["sampler"].batch = 8
    train(**walking, folder=tmp_path / "run", stop_at=15)
    walk = walking["sampler"]
    assert (
        walks_on(torch.ones(1, 8, 4), walk)
        and walks_on(None, walk)
        and not walks_on(torch.ones(1, 4, 4), walk)
    )
    walk.world = 2
    assert not walks_on(torch.ones(1, 8, 4), walk)


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
        train_stage1(config, start(config, quiet=True))
    assert not list(tmp_path.rglob("recipe.json")) and not list(tmp_path.rglob("corpus*"))
