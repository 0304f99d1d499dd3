"""convert_weights: every kind of public file -> safetensors -> back, bit by bit equal."""

import argparse
import json
import pickletools

import numpy as np
import pytest
import torch
from nvidia_pickles import Persistent, marked, recorded, write_snapshot

from configs.schema import Config, GeneratorConfig
from encoders.networks.e4e import FullEncoder, FullEncoderConfig
from encoders.networks.e4e_compact import load_encoder
from scripts.core import runtime
from scripts.core.runtime import RunError
from scripts.stages.convert_weights import convert_weights
from stylegan2.load import EMBEDDED, load_generator
from stylegan2.networks.discriminator import Discriminator
from stylegan2.networks.generator import StyleGAN2
from stylegan2.protocol import sample_w
from stylegan2.public.checkpoints import read_public_checkpoint
from stylegan2.public.nvidia import to_nvidia
from stylegan2.public.rosinality import (
    discriminator_to_rosinality,
    generator_from_rosinality,
    generator_to_rosinality,
)
from stylegan2.public.safe_pickle import read_pickle
from stylegan2.weights import WeightsError, file_hash, read_weights, save_weights
from tuning.tuned_weights import save_tuned

CHANNELS = {4: 8, 8: 8, 16: 4}


pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed=0, clamp=None):
    torch.manual_seed(seed)
    network = StyleGAN2(16, z_dim=8, w_dim=8, channels=CHANNELS, mapping_layers=2, conv_clamp=clamp)
    network.mapping.w_avg.normal_()
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.3)
    return network.eval().requires_grad_(False)


def discriminator(seed=1, clamp=None):
    torch.manual_seed(seed)
    return Discriminator(16, CHANNELS, conv_clamp=clamp, group=2).eval().requires_grad_(False)


def same(a, b):
    left, right = a.state_dict(), b.state_dict()
    return (
        a.config == b.config
        and left.keys() == right.keys()
        and all(torch.equal(left[k], right[k]) for k in left)
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("run"))
    return runtime.start(Config(results_dir=folder, data_dir=folder, device="cpu"), quiet=True)


@pytest.fixture
def convert(run, capsys):
    """A function: input, output, other fields of the config -> what the script prints."""

    def call(source, target, **fields):
        convert_weights(Config(input=str(source), output=str(target), **fields), run)
        return capsys.readouterr().out

    return call


def one_sentence(caught):
    return "\n" not in str(caught.value) and len(str(caught.value)) < 500


# NVIDIA


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("clamp", [None, 256.0])
def test_a_snapshot_is_read_bit_by_bit_and_its_source_is_not_run(tmp_path, monkeypatch, protocol, clamp):
    source, marker = marked(tmp_path)
    monkeypatch.setattr(Persistent, "source", source)
    nets = {"G": generator(0, clamp), "G_ema": generator(1, clamp), "D": discriminator(2, clamp)}
    trees = {
        name: recorded(net, "Discriminator" if name == "D" else "Generator") for name, net in nets.items()
    }
    checkpoint = read_public_checkpoint(write_snapshot(tmp_path / "network-snapshot.pkl", protocol, **trees))
    assert checkpoint.kind.startswith("NVIDIA") and set(checkpoint.networks) == {"g", "g_ema", "d"}
    for name, net in nets.items():
        assert same(checkpoint.build(name.lower()), net)
    assert not marker.exists()
    image = checkpoint.build("g_ema").synthesis(sample_w(nets["G_ema"], 2, seed=0))  # type: ignore[operator]
    assert torch.equal(image, nets["G_ema"].synthesis(sample_w(nets["G_ema"], 2, seed=0)))


def test_settings_as_numpy_scalars_and_sets_are_read(tmp_path):
    def change(name, module):
        module.gain = np.float64(0.25)
        module.odd = {np.int32(7).item(), 8}
        module.flag = np.bool_(True)

    path = write_snapshot(tmp_path / "g.pkl", G_ema=recorded(generator(), "Generator", change))
    state = read_pickle(path)["G_ema"].state
    assert state["gain"] == 0.25 and state["odd"] == {7, 8} and state["flag"] is True


def test_the_clamp_comes_from_the_arguments_when_the_layers_have_none(tmp_path):
    def change(name, module):
        module.__dict__.pop("conv_clamp", None)

    tree = recorded(generator(), "Generator", change, synthesis_kwargs={"conv_clamp": 256})
    checkpoint = read_public_checkpoint(write_snapshot(tmp_path / "g.pkl", G_ema=tree))
    assert checkpoint.build("g_ema").conv_clamp == 256


def test_a_clamp_limits_the_activations():
    """Closed form: with zero noise and weights the layer is sqrt 2 lrelu(b), and the image is the RGB bias."""
    net = generator(clamp=2.0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if (
                name.endswith((".weight", "noise_strength"))
                and "affine" not in name
                and "mapping" not in name
            ):
                parameter.zero_()
        net.synthesis.b4.conv1.bias.copy_(torch.linspace(-40, 40, 8))  # type: ignore[union-attr]
        net.synthesis.b4.torgb.bias.fill_(9.0)  # type: ignore[union-attr]
    w = torch.zeros(1, 8)
    activations = net.synthesis.b4.conv1(torch.ones(1, 8, 4, 4), w, "const")[0, :, 0, 0]  # type: ignore[operator, union-attr]
    bias = torch.linspace(-40, 40, 8)
    expected = (2**0.5 * torch.where(bias > 0, bias, 0.2 * bias)).clamp(-2, 2)
    assert torch.allclose(activations, expected)
    assert torch.equal(net.synthesis.b4.torgb(torch.ones(1, 8, 4, 4), w).unique(), torch.tensor([2.0]))  # type: ignore[operator, union-attr]


def set_attribute(which, **values):
    def change(name, module):
        if name == which:
            module.__dict__.update(values)

    return change


def add_module(name):
    def change(path, module):
        parent, _, last = name.rpartition(".")
        if path == parent:
            module.add_module(last, Persistent("Extra"))

    return change


def spoil(which, key, value):
    def change(name, module):
        if name == which:
            (module._buffers if key in module._buffers else module._parameters)[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_attribute("", c_dim=10), "conditional"),
        (add_module("mapping.embed"), "conditional"),
        (set_attribute("", img_channels=1), "image channels"),
        (add_module("synthesis.input"), "StyleGAN3"),
        (set_attribute("synthesis.b8", architecture="orig"), "architecture 'orig'"),
        (set_attribute("synthesis.b8.conv0", activation="relu"), "activation 'relu'"),
        (set_attribute("synthesis.b8.conv0", use_noise=False), "without noise"),
        (set_attribute("mapping.fc1", bias_gain=1.0), "learning rate"),
        (set_attribute("synthesis.b8.conv0", conv_clamp=3), "different clamps"),
        (set_attribute("synthesis.b8.conv0", conv_clamp="x"), "clamp"),
        (spoil("synthesis.b8", "resample_filter", torch.ones(4, 4) / 16), "filter"),
        (spoil("synthesis.b8.conv0", "weight", torch.full((8, 8, 3, 3), torch.nan)), "NaN"),
        (spoil("synthesis.b8.conv0", "weight", torch.full((8, 8, 3, 3), torch.inf)), "NaN"),
        (spoil("synthesis.b8.conv0", "weight", torch.zeros(2, 2)), r"b8.conv0.weight is \(2, 2\), expected"),
        (spoil("synthesis.b16.conv1", "weight", torch.zeros(9**6, 1)), "expected"),
        (spoil("synthesis.b16.conv1", "weight", torch.zeros(0, 4)), "at least one channel"),
        (spoil("mapping.fc0", "weight", torch.zeros(())), "too few axes"),
        (spoil("mapping.fc0", "weight", None), "no mapping.fc0"),
    ],
)
def test_generators_that_differ_from_ours_are_refused_in_one_sentence(tmp_path, convert, change, words):
    path = write_snapshot(tmp_path / "other.pkl", G_ema=recorded(generator(), "Generator", change))
    with pytest.raises(WeightsError, match=rf"other\.pkl.*{words}") as caught:
        convert(path, tmp_path / "o.safetensors")
    assert one_sentence(caught)
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_attribute("b16", architecture="orig"), "architecture 'orig'"),
        (add_module("mapping"), "conditional"),
        (set_attribute("b4.mbstd", group_size=None), "minibatch groups"),
    ],
)
def test_discriminators_that_differ_from_ours_are_refused(tmp_path, change, words):
    path = write_snapshot(tmp_path / "d.pkl", D=recorded(discriminator(), "Discriminator", change))
    with pytest.raises(WeightsError, match=words):
        read_public_checkpoint(path).build("d")


# the script


def public_file(kind, net, folder):
    """Writes the generator in one of the layouts of public files."""
    theirs, average = generator_to_rosinality(net), net.w_avg.clone()
    path = folder / f"{kind} [1].pt"
    if kind == "nvidia snapshot":
        return write_snapshot(path.with_suffix(".pkl"), G_ema=recorded(net, "Generator"))
    encoder = {"encoder.input_layer.0.weight": torch.zeros(64, 3, 3, 3)}
    decoder = {f"decoder.{key}": value for key, value in theirs.items()}
    content = {
        "nvidia names": to_nvidia(net),
        "rosinality": {"g_ema": theirs, "g": theirs, "latent_avg": average},
        "training": {
            "g_ema": theirs,
            "d": discriminator_to_rosinality(discriminator()),
            "latent_avg": average,
            "args": argparse.Namespace(size=16, lr=0.002, device=torch.device("cuda")),
            "d_optim": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"betas": (0, 0.99)}]},
        },
        "e4e": {
            "state_dict": encoder | decoder,
            "latent_avg": average[None].repeat(6, 1),
            "opts": {"device": "cuda:3", "encoder_type": "Encoder4Editing"},
        },
        "psp": {"state_dict": encoder | decoder, "latent_avg": average, "opts": argparse.Namespace(a=1)},
        "other encoder": {
            "state_dict": {"encoder.conv1.weight": torch.zeros(64, 6, 7, 7)} | decoder,
            "latent_avg": average,
            "opts": {"encoder_type": "ResNetBackboneEncoder"},
        },
    }[kind]
    torch.save(content, path, _use_new_zipfile_serialization=kind not in ("e4e", "rosinality"))
    return path


KINDS = {
    "nvidia snapshot": "NVIDIA snapshot",
    "nvidia names": "NVIDIA's names",
    "rosinality": "rosinality checkpoint",
    "training": "rosinality checkpoint",
    "e4e": "e4e or pSp",
    "psp": "e4e or pSp",
    "other encoder": "e4e or pSp",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_the_same_generator(kind, tmp_path, convert):
    net = generator()
    source, target = public_file(kind, net, tmp_path), tmp_path / "new" / "g.safetensors"
    printed = convert(source, target)
    assert same(load_generator(target), net)
    for words in (KINDS[kind], "16 px", "4:8 8:8 16:4", "rows of W+", "in the file", file_hash(target)):
        assert words in printed
    notes = read_weights(target).notes
    assert notes["converted_from"]["sha256"] == file_hash(source) and "licence" in notes
    assert json.loads(json.dumps(notes)) == notes


@pytest.mark.parametrize("layout", ["rosinality", "nvidia"])
@pytest.mark.parametrize("clamp", [None, 256.0])
@pytest.mark.parametrize("which", ["g_ema", "d"])
def test_export_and_back_is_exact(layout, clamp, which, tmp_path, convert):
    net = generator(clamp=clamp) if which == "g_ema" else discriminator(clamp=clamp)
    first, middle, last = tmp_path / "1.safetensors", tmp_path / "2.pt", tmp_path / "3.safetensors"
    save_weights(net, first, "stylegan2" if which == "g_ema" else "discriminator", net.config)
    convert(first, middle, layout=layout)
    content = torch.load(middle, weights_only=True)
    assert ("latent_avg" in content) == (layout == "rosinality" and which == "g_ema")
    convert(middle, last, network=which)
    before, after = read_weights(first), read_weights(last)
    if which == "d" and layout == "rosinality":
        after.config["group"] = before.config["group"]  # rosinality's is always 4 and not stored
    assert after.config == before.config and after.state.keys() == before.state.keys()
    assert all(torch.equal(after.state[key], value) for key, value in before.state.items())


def test_an_exported_network_has_the_keys_and_shapes_of_nvidias():
    state, net = to_nvidia(generator()), generator()
    assert state.keys() - net.state_dict().keys() == {
        f"synthesis.{name}.resample_filter"
        for name in ("b4", "b4.conv1", "b8", "b8.conv0", "b8.conv1", "b16", "b16.conv0", "b16.conv1")
    }
    assert all(state[f"synthesis.{b}.resample_filter"].sum() == 1 for b in ("b4", "b8", "b16"))
    assert "b4.conv.resample_filter" in to_nvidia(discriminator())


def test_a_tuned_generator_is_exported_whole(tmp_path, convert):
    base, tuned = generator(), generator()
    tuned.synthesis.b16.conv0.weight.add_(0.5)  # type: ignore[operator, union-attr]
    files = [tmp_path / name for name in ("base.safetensors", "tuned.safetensors", "tuned.pt")]
    save_weights(base, files[0], "stylegan2", base.config)
    save_tuned(files[1], tuned, base, torch.zeros(1, 6, 8), file_hash(files[0]))
    convert(files[1], files[2], generator=GeneratorConfig(str(files[0])))
    content = torch.load(files[2], weights_only=True)
    again = generator_from_rosinality(content["g_ema"], content["latent_avg"])
    difference = again.synthesis.b16.conv0.weight - base.synthesis.b16.conv0.weight  # type: ignore[operator, union-attr]
    assert torch.allclose(difference, torch.tensor(0.5), atol=1e-3)  # stored as float16
    with pytest.raises(
        WeightsError, match="tuned from the generator"
    ):  # the embedded generator is not its base
        convert(files[1], files[2])


def test_a_missing_w_avg_is_estimated_and_reported(tmp_path, convert):
    net = generator()
    torch.save({"g_ema": generator_to_rosinality(net)}, tmp_path / "g.pt")
    printed = convert(tmp_path / "g.pt", tmp_path / "g.safetensors")
    assert "it was estimated from 10,000 z, seed 0" in printed
    first = load_generator(tmp_path / "g.safetensors").w_avg
    net.mapping.estimate_w_avg()
    assert torch.equal(first, net.w_avg)


def test_encoders_are_recognised(tmp_path):
    net = generator()
    checkpoint = read_public_checkpoint(public_file("e4e", net, tmp_path))
    assert (
        list(checkpoint.encoder) == ["input_layer.0.weight"] and checkpoint.encoder_type == "Encoder4Editing"
    )
    assert checkpoint.latent_avg is not None and checkpoint.latent_avg.shape == (6, 8)
    torch.save(
        {"input_layer.0.weight": torch.zeros(64, 3, 3, 3), "output_layer.3.weight": torch.zeros(512, 9)},
        tmp_path / "ir.pth",
    )
    assert read_public_checkpoint(tmp_path / "ir.pth").kind.startswith("IR-SE50")


@pytest.mark.slow  # 270 M parameters: a gigabyte, twice
@pytest.mark.parametrize(
    ("encoder_type", "kind"), [("Encoder4Editing", "e4e"), ("GradualStyleEncoder", "psp")]
)
def test_a_full_encoder_is_converted(encoder_type, kind, tmp_path, convert):
    torch.manual_seed(0)
    net = FullEncoder(FullEncoderConfig(kind=kind, num_rows=8), torch.randn(512)).eval()  # type: ignore[arg-type]
    state = {f"encoder.{key}": value for key, value in net.state_dict().items() if key != "w_avg"}
    content = {"state_dict": state, "latent_avg": net.w_avg, "opts": {"encoder_type": encoder_type}}
    torch.save(content, tmp_path / "theirs.pt")
    printed = convert(tmp_path / "theirs.pt", tmp_path / "e.safetensors", network="encoder")
    assert f"{kind} encoder" in printed
    ours, x = load_encoder(tmp_path / "e.safetensors"), torch.rand(1, 3, 256, 256) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(ours(x), net(x))


def test_a_network_that_computes_nan_is_not_written(tmp_path, convert):
    net = generator()
    net.synthesis.b16.conv1.bias.fill_(3e38)  # type: ignore[operator, union-attr]  # finite, but not times sqrt 2
    source = public_file("rosinality", net, tmp_path)
    with pytest.raises(RunError, match="computes NaN or infinity"):
        convert(source, tmp_path / "g.safetensors")
    assert not (tmp_path / "g.safetensors").exists()


@pytest.mark.parametrize(
    ("source", "target", "network", "words"),
    [
        ("file", "o.pt", "g_ema", "must end in .safetensors"),
        ("ours", "o.safetensors", "g_ema", "must end in .pt"),
        ("absent", "o.safetensors", "g_ema", "no weight file"),
        ("file", "o.safetensors", "d", "holds no network 'd', only g_ema, g"),
        ("file", "o.safetensors", "encoder", "holds no encoder"),
        ("e4e", "o.safetensors", "encoder", "not an e4e or pSp encoder"),
        ("psp", "o.safetensors", "encoder", "of the type 'unknown'; only Encoder4Editing"),
        ("other encoder", "o.safetensors", "encoder", "of the type 'ResNetBackboneEncoder'; only Encoder4Ed"),
        ("ir", "o.safetensors", "encoder", "not an IR-SE50 recognition network"),
        ("embedded", "o.pt", "g_ema", "only a StyleGAN2"),
        ("page", "o.safetensors", "g_ema", "web page"),
        ("unknown", "o.safetensors", "g_ema", "none of the networks"),
    ],
)
def test_impossible_requests(source, target, network, words, tmp_path, convert):
    net = generator()
    save_weights(net, tmp_path / "g.safetensors", "stylegan2", net.config)
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html>Sign in</html>")
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "unknown.pt")
    files = {"file": public_file("rosinality", net, tmp_path), "ours": tmp_path / "g.safetensors"}
    files |= {"embedded": EMBEDDED, "page": tmp_path / "page.pt", "unknown": tmp_path / "unknown.pt"}
    files |= {kind: public_file(kind, net, tmp_path) for kind in ("e4e", "psp", "other encoder")}
    files |= {"ir": tmp_path / "ir.pth"}
    torch.save({"input_layer.0.weight": torch.zeros(1), "output_layer.3.weight": torch.zeros(1)}, files["ir"])
    with pytest.raises((RunError, WeightsError), match=words) as caught:
        convert(files.get(source, tmp_path / "absent.pkl"), tmp_path / target, network=network)
    assert one_sentence(caught) and not (tmp_path / target).exists()


def test_the_command_line(tmp_path, capsys):
    """Through Hydra's parser: odd file names, the exit code, one sentence on stderr."""
    source, target = public_file("rosinality", generator(), tmp_path), tmp_path / "a=b, [c].safetensors"
    folders = [f"results_dir={tmp_path / 'results'}", f"data_dir={tmp_path / 'data'}", "device=cpu"]
    arguments = [f"input={source}", f"output={target}", *folders]
    assert runtime.attempt(convert_weights, runtime.compose(arguments)) == 0 and target.exists()
    capsys.readouterr()
    assert runtime.attempt(convert_weights, runtime.compose(["input=x.pkl", *folders])) == 1
    assert capsys.readouterr().err == "Error: Give input=FILE and output=FILE.\n"


def test_the_fixture_writes_what_nvidia_writes(tmp_path):
    """The snapshots of these tests contain the names that the reader admits, and source code."""
    path = write_snapshot(tmp_path / "g.pkl", protocol=3, G_ema=recorded(generator(), "Generator"))
    names = {
        argument for opcode, argument, _ in pickletools.genops(path.read_bytes()) if opcode.name == "GLOBAL"
    }
    assert "torch_utils.persistence _reconstruct_persistent_obj" in names and "dnnlib.util EasyDict" in names
    assert b"raise SystemExit" in path.read_bytes()
