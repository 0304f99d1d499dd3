"""The checkpoint: an average, a best, and every part of a run back as it was."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

from trajectory.model.displacement import DisplacementConfig, TrajectoryError, fit_space
from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet
from trajectory.training.train_state import TrainState, changed_keys


class Counter:
    """Stands in for the sampler: its state is its step."""

    def __init__(self):
        self.step = 0

    def state_dict(self):
        return {"step": self.step}

    def load_state_dict(self, state):
        self.step = state["step"]


def fresh(seed=0, signature: Any = None):
    torch.manual_seed(seed)
    d = np.random.default_rng(seed).standard_normal((20, 2, 4)).astype(np.float32)
    space = fit_space(d, d, DisplacementConfig(2, 2))
    net = TrajectoryNet(TrajectoryConfig(channels=2, audio_dim=4, hidden=4, decoder=4), (4, 8), 2, 2)
    counter: Any = Counter()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.1)
    return TrainState(
        net, space, optimiser, counter, signature or {"a": {"b": 1}}, np.random.default_rng(seed)
    )


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


def test_everything_comes_back(tmp_path):
    once = fresh()
    work(once, 6)
    once.save(tmp_path / "state.pt")
    work(once, 5)
    again = fresh(seed=7)
    again.restore(tmp_path / "state.pt")
    assert again.step == again.sampler.step == 6 and again.best_score == 0
    work(again, 5)
    for a, b in ((once.net, again.net), (once.ema, again.ema), (once.space, again.space)):
        assert all(
            torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
        )
    assert all(torch.equal(once.best[k], again.best[k]) for k in once.best)
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]  # nothing temporary is left


def test_the_average_follows_and_starts_without_the_initial_weights():
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


def test_the_best_is_a_copy():
    state = fresh()
    assert state.keep_best(0.5) and not state.keep_best(0.4)
    kept = {k: v.clone() for k, v in state.best.items()}
    with torch.no_grad():
        for p in state.net.parameters():
            p.add_(1.0)
    state.update_ema(0.5)
    assert all(torch.equal(kept[k], v) for k, v in state.best.items())
    assert state.keep_best(0.6)
    assert not all(torch.equal(kept[k], v) for k, v in state.best.items())


def test_another_configuration_is_refused_with_both_values(tmp_path):
    fresh().save(tmp_path / "state.pt")
    with pytest.raises(TrajectoryError, match=r"a\.b was 1, is 2"):
        fresh(signature={"a": {"b": 2}}).restore(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:500])
    with pytest.raises(TrajectoryError, match="cut short"):
        fresh().restore(tmp_path / "state.pt")


def test_a_setting_that_is_new_counts_as_its_default(tmp_path):
    net = asdict(TrajectoryConfig(hidden=4))
    old = {key: value for key, value in net.items() if key != "identity"}
    fresh(signature={"net": old}).save(tmp_path / "state.pt")
    defaults = {"select": "correlation", "carry": False}
    fresh(signature={"net": net} | defaults).restore(tmp_path / "state.pt")
    with pytest.raises(TrajectoryError, match=r"net\.identity was concat, is film"):
        fresh(signature={"net": net | {"identity": "film"}} | defaults).restore(tmp_path / "state.pt")


def test_changed_keys_names_what_differs():
    assert changed_keys({"a": 1, "b": {"c": [1]}}, {"a": 1, "b": {"c": [2]}, "d": 3}) == [
        "b.c was [1], is [2]",
        "d was None, is 3",
    ]
