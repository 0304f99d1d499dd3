"""stylegan2: images, weight files (also hostile ones) and rendering."""

import json
import stat
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import save_file

from stylegan2.images import resize, to_tensor, to_uint8
from stylegan2.load import load_generator
from stylegan2.networks.generator import StyleGAN2
from stylegan2.protocol import sample_w
from stylegan2.render import render
from stylegan2.weights import WeightsError, atomic_path, file_hash, read_weights, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    made = StyleGAN2(16, z_dim=8, w_dim=8, channels={4: 8, 8: 8, 16: 4}, mapping_layers=2)
    made.mapping.estimate_w_avg(100)
    return made.eval().requires_grad_(False)


def rewrite(path, change):
    """The same weight file with its tensors and metadata changed."""
    weights = read_weights(path)
    state = dict(weights.state)
    metadata = {"kind": weights.kind, "config": json.dumps(weights.config), "notes": "{}"}
    change(state, metadata)
    save_file(state, path, metadata=metadata)


# images


@given(arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.just(3))))
def test_pixels_survive_the_round_trip(frames):
    x = to_tensor(frames)
    assert x.shape == (frames.shape[0], 3, *frames.shape[1:3]) and x.dtype == torch.float32
    assert x.min() >= -1 and x.max() <= 1
    assert np.array_equal(to_uint8(x), frames)


def test_pixel_range_and_layout():
    x = to_tensor(np.array([[[0, 255, 127]]], np.uint8))
    assert x.flatten().tolist() == pytest.approx([-1, 1, -1 / 255], abs=1e-6)
    assert to_uint8(torch.tensor([-7.0, 7.0, 0.0]).view(1, 3, 1, 1)).flatten().tolist() == [0, 255, 128]
    with pytest.raises(ValueError, match="uint8"):
        to_tensor(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        to_uint8(torch.zeros(3, 4, 4))


def test_resize_averages_areas():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(resize(x, 2), torch.tensor([[2.5, 4.5], [10.5, 12.5]])[None, None])
    assert resize(x, 4) is x and resize(x, 8).shape[-2:] == (8, 8)


# weights


def test_round_trip_is_exact(generator, tmp_path):
    path = tmp_path / "new folder" / "g [1] é.safetensors"
    save_weights(generator, path, "stylegan2", generator.config, {"licence": "test"})
    again = load_generator(path)
    assert read_weights(path).notes == {"licence": "test"} and again.config == generator.config
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), generator.state_dict().values(), strict=True)
    )
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) & 0o044  # as readable as any new file


def test_half_storage_is_float32_in_memory(generator, tmp_path):
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    save_weights(generator, full, "stylegan2", generator.config)
    save_weights(generator, half, "stylegan2", generator.config, half=True)
    again = load_generator(half)
    assert all(p.dtype == torch.float32 for p in again.parameters())
    w = sample_w(generator, 1, seed=0)
    assert (again.synthesis(w) - generator.synthesis(w)).abs().max() < 0.02
    assert file_hash(full) != file_hash(half) and len(file_hash(half)) == 64
    big = {"x": torch.tensor([1e6])}
    with pytest.raises(WeightsError, match="x is not finite as float16"):
        save_weights(big, tmp_path / "big.safetensors", "other", {}, half=True)
    assert not (tmp_path / "big.safetensors").exists()


def test_hostile_files_are_refused_in_one_sentence(generator, tmp_path):
    good = tmp_path / "good.safetensors"
    save_weights(generator, good, "stylegan2", generator.config)
    key = "synthesis.b4.conv1.weight"

    def case(name, content=None, change=None):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(good.read_bytes() if content is None else content)
        if change is not None:
            rewrite(path, change)
        return path

    whole = good.read_bytes()
    cases = {
        case("text", b"not weights at all"): "not a safetensors file",
        case("empty", b""): "not a safetensors file",
        case("truncated", whole[: len(whole) // 2]): "cut short",
        case("no_kind", change=lambda s, m: m.pop("kind")): "kind",
        case("no_config", change=lambda s, m: m.pop("config")): "config",
        case("bad_json", change=lambda s, m: m.update(config="{")): "config",
        case("list_config", change=lambda s, m: m.update(config="[]")): "config",
        case("other_config", change=lambda s, m: m.update(config='{"depth": 3}')): "config",
        case("odd_size", change=lambda s, m: m.update(config='{"resolution": 48}')): "config",
        case("other_kind", change=lambda s, m: m.update(kind="encoder")): "not a generator",
        case("missing_key", change=lambda s, m: s.pop(key)): key,
        case("extra_key", change=lambda s, m: s.update(extra=torch.zeros(1))): "extra",
        case("shape", change=lambda s, m: s.update({key: torch.zeros(2, 2)})): key,
        case("nan", change=lambda s, m: s[key].view(-1)[0].fill_(float("nan"))): "NaN",
        tmp_path / "absent.safetensors": "no weight file",
        tmp_path: "no weight file",
    }
    for path, words in cases.items():
        with pytest.raises(WeightsError) as caught:
            load_generator(path)
        message = str(caught.value)
        assert words in message and path.name in message, (path.name, message)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".txt" and temporary.parent == tmp_path
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


# render


def test_frames_do_not_depend_on_chunks_or_container(generator):
    w = torch.cat([sample_w(generator, 5, seed=0)], 0)
    expected = np.stack(list(render(generator, w, chunk=5)))
    assert expected.shape == (5, 16, 16, 3) and expected.dtype == np.uint8
    for given_w, chunk in (
        (w, 1),
        (w.numpy(), 2),
        ((row for row in w), 3),
        ([row.numpy() for row in w], 100),
    ):
        frames = np.stack(list(render(generator, given_w, chunk=chunk)))
        assert np.abs(frames.astype(int) - expected).max() <= 1  # the order of a sum may differ
    half = np.stack(list(render(generator, w.numpy().astype(np.float16))))
    assert np.abs(half.astype(int) - expected).mean() < 1
    assert list(render(generator, w[:0])) == []


def test_latents_are_read_as_frames_are_taken(generator):
    w, taken = sample_w(generator, 1, seed=0)[0], []

    def endless():
        while True:
            taken.append(1)
            yield w

    frames = render(generator, endless(), chunk=4)
    for _ in range(6):
        next(frames)
    assert len(taken) == 8
    assert not torch.is_inference_mode_enabled()  # the consumer can still train


def test_memory_does_not_grow_with_length(generator):
    row = sample_w(generator, 1, seed=0)[0]
    tracemalloc.start()
    peaks = []
    for length in (64, 512):
        tracemalloc.reset_peak()
        count = sum(1 for _ in render(generator, (row for _ in range(length)), chunk=8))
        peaks.append(tracemalloc.get_traced_memory()[1])
        assert count == length
    tracemalloc.stop()
    assert peaks[1] < peaks[0] + 8 * 16 * 16 * 3 * 4


def test_wrong_latents_and_chunks_are_refused(generator):
    with pytest.raises(ValueError, match=r"\(6, 8\).*\(14, 8\)"):
        next(render(generator, torch.zeros(1, 14, 8)))
    with pytest.raises(ValueError, match="chunk"):
        next(render(generator, torch.zeros(1, 6, 8), chunk=0))
