"""Tuned generators on disk: exact up to float16 of the difference, small, and loaded only with their base."""

import json
import time
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from stylegan2.load import load_generator
from stylegan2.weights import WeightsError, read_weights, save_weights
from tuning.tuned_weights import load_tuned, save_tuned

HASH, OTHER = "ab" * 32, "cd" * 32


def network(seed: int) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).requires_grad_(False)


@pytest.fixture
def stored(tmp_path):
    base, tuned = network(0), network(0)
    tuned[1].weight += 1e-3 * torch.randn(3, 4)
    pivots = torch.randn(2, 14, 8)
    save_tuned(tmp_path / "tuned.safetensors", tuned, base, pivots, HASH, {"name": "toy"})
    return base, tuned, pivots, tmp_path / "tuned.safetensors"


def test_round_trip(stored):
    base, tuned, pivots, path = stored
    loaded = load_tuned(path, base, HASH)
    difference = (tuned[1].weight - base[1].weight).half().float()
    assert torch.equal(loaded[1].weight, base[1].weight + difference)
    torch.testing.assert_close(loaded[1].weight, tuned[1].weight, atol=1e-3 * 2**-9, rtol=0)
    assert torch.equal(loaded[0].weight, base[0].weight)
    assert torch.equal(base[1].weight, network(0)[1].weight)
    weights = read_weights(path)
    assert torch.equal(weights.state["pivots"], pivots) and weights.notes == {"name": "toy"}


def test_only_what_changed_is_stored(stored):
    with safe_open(stored[3], framework="pt") as file:
        assert sorted(file.keys()) == ["delta.1.weight", "pivots"]
        assert file.get_tensor("delta.1.weight").dtype == torch.float16
        assert json.loads(file.metadata()["config"])["base_hash"] == HASH


def test_the_embedded_generator_tuned_everywhere_loads_in_a_second(tmp_path):
    base = load_generator()
    tuned = load_generator()
    for parameter in tuned.parameters():
        parameter.data += 1e-3 * torch.randn_like(parameter)
    save_tuned(path := tmp_path / "tuned.safetensors", tuned, base, torch.zeros(32, 14, 512), HASH, {})
    started = time.process_time()  # CPU time: independent of other processes
    load_tuned(path, base, HASH)
    assert time.process_time() - started < 1
    assert path.stat().st_size < 20e6


def test_saving_what_was_loaded_is_idempotent(stored, tmp_path):
    base, _, pivots, path = stored
    loaded = load_tuned(path, base, HASH)
    save_tuned(tmp_path / "again.safetensors", loaded, base, pivots, HASH)
    again = load_tuned(tmp_path / "again.safetensors", base, HASH)
    torch.testing.assert_close(again[1].weight, loaded[1].weight, atol=1e-6, rtol=0)


def test_the_wrong_base_is_refused(stored):
    base, _, _, path = stored
    with pytest.raises(
        WeightsError, match=r"tuned\.safetensors was tuned from the generator abab.*not from cdcd"
    ):
        load_tuned(path, base, OTHER)
    with pytest.raises(WeightsError, match="does not fit its base"):
        load_tuned(path, nn.Sequential(nn.Linear(5, 4)), HASH)


def test_other_files_are_refused(tmp_path):
    save_weights(network(0), tmp_path / "base.safetensors", "stylegan2", {})
    with pytest.raises(WeightsError, match="not a tuned generator"):
        load_tuned(tmp_path / "base.safetensors", network(0), HASH)
    with pytest.raises(WeightsError, match="no weight file"):
        load_tuned(tmp_path / "absent.safetensors", network(0), HASH)


def test_a_broken_generator_is_not_saved(stored, tmp_path):
    base, tuned, pivots, _ = stored
    tuned[0].bias[0] = float("nan")
    with pytest.raises(WeightsError, match="not finite"):
        save_tuned(tmp_path / "bad.safetensors", tuned, base, pivots, HASH)
    assert not (tmp_path / "bad.safetensors").exists()
