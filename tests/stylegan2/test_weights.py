"""Weight files: exact round trips, damaged files, atomic writes."""

import json
import resource
import stat

import pytest
import torch
from safetensors.torch import save_file

from stylegan2.load import load_generator
from stylegan2.networks.generator import StyleGAN2
from stylegan2.protocol import sample_w
from stylegan2.weights import WeightsError, atomic_path, file_hash, read_weights, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    network = StyleGAN2(16, z_dim=8, w_dim=8, channels={4: 8, 8: 8, 16: 4}, mapping_layers=2)
    network.mapping.estimate_w_avg(100)
    return network.eval().requires_grad_(False)


def rewrite(path, change):
    """The same weight file with its tensors and metadata changed."""
    weights = read_weights(path)
    state = dict(weights.state)
    metadata = {"kind": weights.kind, "config": json.dumps(weights.config), "notes": "{}"}
    change(state, metadata)
    save_file(state, path, metadata=metadata)


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

    intact = good.read_bytes()
    cases = {
        case("text", b"not weights at all"): "not a safetensors file",
        case("empty", b""): "not a safetensors file",
        case("truncated", intact[: len(intact) // 2]): "cut short",
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


def test_equal_networks_are_equal_files(tmp_path):
    network = torch.nn.Linear(3, 2)
    for number in range(6):
        save_weights(network, tmp_path / f"{number}.safetensors", "kind", {"é": 1}, {"a": "\n"})
    files = [(tmp_path / f"{number}.safetensors").read_bytes() for number in range(6)]
    assert len(set(files)) == 1
    read = read_weights(tmp_path / "0.safetensors")
    assert (read.kind, read.config, read.notes) == ("kind", {"é": 1}, {"a": "\n"})
    assert torch.equal(read.state["weight"], network.weight)


def test_a_full_disk_is_told_with_the_files_name_and_leaves_nothing(tmp_path):
    """A limit on the size of files stands for the full disk; each library tells of it in its own way."""
    values = torch.randn(1000, 100)

    def text(path):
        with atomic_path(path) as temporary:
            temporary.write_text("x" * 10**6)

    def torch_file(path):
        with atomic_path(path) as temporary:
            torch.save({"a": values}, temporary)

    def rust_file(path):
        save_weights({"a": values}, path, "kind", {})

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for write in (text, torch_file, rust_file):
        (tmp_path / "x.pt").write_text("earlier")
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, before[1]))
        try:
            with pytest.raises(OSError, match="File too large") as caught:
                write(tmp_path / "x.pt")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert caught.value.filename == str(tmp_path / "x.pt")
        assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
        assert (tmp_path / "x.pt").read_text() == "earlier"


def test_other_errors_while_a_file_is_written_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="of the network"), atomic_path(tmp_path / "x.pt"):
        raise RuntimeError("of the network")
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "x.pt"):
        (tmp_path / "source").read_bytes()
    assert caught.value.filename == str(tmp_path / "source") and list(tmp_path.iterdir()) == []
