"""The state of a training: the average, the best weights, and a checkpoint that restores every part."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric.plugins import Precision

from trajectory.model.displacement import DisplacementConfig, fit_space
from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet
from trajectory.training.train_state import TrainState, changed_keys, flat


class Counter:
    """Replaces the sampler: its state is its step."""

    def __init__(self):
        self.step = 0

    def state_dict(self):
        return {"step": self.step}

    def load_state_dict(self, state):
        self.step = state["step"]


def fresh(seed: int = 0, settings: Any = None) -> TrainState:
    torch.manual_seed(seed)
    d = np.random.default_rng(seed).standard_normal((20, 2, 4)).astype(np.float32)
    space = fit_space(d, d, DisplacementConfig(2, 2))
    net = TrajectoryNet(TrajectoryConfig(channels=2, audio_dim=4, hidden=4, decoder=4), (4, 8), 2, 2)
    counter: Any = Counter()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.1)
    rng = np.random.default_rng(seed)
    return TrainState(net, space, optimiser, counter, settings or {"a.b": 1}, rng, Precision())


def work(state, steps):
    for _ in range(steps):
        state.optimiser.zero_grad()
        x = torch.randn(1, 3, 4, 8) + float(state.rng.standard_normal())
        state.net.train()(x, torch.randn(1, 2))[0].sub(1).square().sum().backward()
        state.optimiser.step()
        state.step += 1
        state.sampler.step += 1
        state.update_ema(0.9)
        state.keep_best(-abs(state.step - 4))


def test_everything_is_restored(tmp_path):
    once = fresh()
    work(once, 6)
    once.save(tmp_path / "state.pt")
    work(once, 5)
    again = fresh(seed=7)
    again.restore(tmp_path / "state.pt")
    assert again.step == again.sampler.step == 6 and again.best_score == 0 and again.waited == 2
    work(again, 5)
    for a, b in ((once.net, again.net), (once.ema, again.ema), (once.space, again.space)):
        assert all(
            torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
        )
    assert all(torch.equal(once.best[k], again.best[k]) for k in once.best)
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]  # no temporary file is left


def test_the_average_follows_the_weights_and_drops_the_initial_ones():
    state = fresh()
    with torch.no_grad():
        for p in state.net.parameters():
            p.fill_(1.0)
    state.step = 1000
    before = next(state.ema.parameters()).clone()
    state.update_ema(0.75)
    assert torch.allclose(next(state.ema.parameters()), 0.75 * before + 0.25)
    state.step = 0
    state.update_ema(0.999)  # early, the decay is (1 + 0) / (10 + 0)
    assert torch.allclose(next(state.ema.parameters()), 0.1 * (0.75 * before + 0.25) + 0.9)


def test_the_best_weights_are_a_copy():
    state = fresh()
    state.keep_best(0.5)
    state.keep_best(0.4)
    assert state.best_score == 0.5 and state.waited == 1
    copied = {k: v.clone() for k, v in state.best.items()}
    with torch.no_grad():
        for p in state.net.parameters():
            p.add_(1.0)
    state.update_ema(0.5)
    assert all(torch.equal(copied[k], v) for k, v in state.best.items())
    state.keep_best(0.6)
    assert state.waited == 0 and not all(torch.equal(copied[k], v) for k, v in state.best.items())


def test_other_settings_and_a_damaged_file_are_refused(tmp_path):
    fresh().save(tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"a\.b was 1, is 2.*resume=none"):
        fresh(settings={"a.b": 2}).restore(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"is no checkpoint .*resume=none"):
        fresh().restore(tmp_path / "state.pt")


def edit_settings(path: Path, **changes: Any) -> None:
    content = torch.load(path, weights_only=True)
    settings = {k: v for k, v in (json.loads(content["settings"]) | changes).items() if v is not None}
    torch.save(content | {"settings": json.dumps(settings)}, path)


def test_a_setting_that_a_checkpoint_does_not_name_may_be_new(tmp_path):
    state = fresh(settings={"net.cell": "gru", "net.identity": "concat"})
    state.save(tmp_path / "state.pt")
    edit_settings(tmp_path / "state.pt", **{"net.identity": None, "net.kernel": 3})
    fresh(settings=state.settings).restore(tmp_path / "state.pt")


def test_nested_settings_by_dotted_names():
    assert flat({"a": 1, "b": {"c": [1], "d": {"e": 2}}}) == {"a": 1, "b.c": [1], "b.d.e": 2}
    assert changed_keys({"a": 1, "b": {"c": [1]}}, {"a": 1, "b": {"c": [2]}, "d": 3}) == [
        "b.c was [1], is [2]",
        "d was None, is 3",
    ]
