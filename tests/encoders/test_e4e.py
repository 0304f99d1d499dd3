"""The full-size e4e and pSp: structure, stages and files on small networks; a reference result at full size (slow)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from encoders.networks.e4e import FullEncoder, FullEncoderConfig, from_public
from encoders.networks.e4e_compact import load_encoder, save_encoder
from encoders.networks.ir_se import BackboneConfig, IdentityNet, identity_from_public
from stylegan2.weights import WeightsError

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL_BODY = {"widths": (8, 8, 8, 16, 16), "depths": (1, 1, 2, 1)}
SMALL = FullEncoderConfig(num_rows=10, w_dim=12, head_width=16, side=64, **SMALL_BODY)
COUNTS = "num_batches_tracked"


def images(n: int = 2, side: int = 64) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def small(**changes) -> FullEncoder:
    torch.manual_seed(0)
    config = FullEncoderConfig(**{**vars(SMALL), **changes})
    return FullEncoder(config, torch.randn(config.w_dim)).eval().requires_grad_(False)


def one_head(state: dict[str, torch.Tensor], row: int, x: torch.Tensor) -> torch.Tensor:
    """The published head: stride-2 convolutions with LeakyReLU, then the equalised linear layer."""
    k = 0
    while f"styles.{row}.convs.{k}.weight" in state:
        weight, bias = (state[f"styles.{row}.convs.{k}.{p}"] for p in ("weight", "bias"))
        x, k = F.leaky_relu(F.conv2d(x, weight, bias, stride=2, padding=1), 0.01), k + 2
    weight = state[f"styles.{row}.linear.weight"]
    return F.linear(x.flatten(1), weight / weight.shape[1] ** 0.5, state[f"styles.{row}.linear.bias"])


@pytest.mark.parametrize("side", [64, 256])
@pytest.mark.parametrize("n", [1, 3])
def test_heads_computed_together_equal_the_published_ones(n: int, side: int) -> None:
    encoder = small(side=side)
    pyramid = encoder.pyramid(images(n, side))
    assert [f.shape[-1] for f in pyramid] == [side // 16, side // 8, side // 4]
    state = encoder.state_dict()
    level = [0] * 3 + [1] * 4 + [2] * 3
    expected = torch.stack([one_head(state, row, pyramid[level[row]]) for row in range(10)], 1)
    torch.testing.assert_close(encoder.styles(pyramid, 10), expected, atol=1e-5, rtol=1e-4)


def test_gradients_of_the_heads_equal_those_of_the_loop() -> None:
    encoder = small()
    pyramid = [f.detach() for f in encoder.pyramid(images())]
    encoder.styles.requires_grad_(True)
    encoder.styles(pyramid, 10).square().sum().backward()
    state = {
        key: value.clone().requires_grad_() for key, value in encoder.state_dict().items() if "styles" in key
    }
    torch.stack([one_head(state, row, pyramid[2]) for row in range(7, 10)], 1).square().sum().backward()
    fine = encoder.styles.levels[2]
    for name, public in (("weight1", "convs.2.weight"), ("linear", "linear.weight")):
        expected = torch.stack([state[f"styles.{row}.{public}"].grad for row in range(7, 10)])
        torch.testing.assert_close(getattr(fine, name).grad, expected, atol=1e-5, rtol=1e-4)


def test_stages_add_one_delta_at_a_time() -> None:
    encoder, x = small(), images()
    heads = encoder.heads(x)
    for stage in (0, 1, 2, 3, 6, 7, 9):
        encoder.stage = stage
        w = encoder(x) - encoder.w_avg
        torch.testing.assert_close(w[:, 0], heads[:, 0])
        torch.testing.assert_close(w[:, 1 : stage + 1], heads[:, :1] + heads[:, 1 : stage + 1])
        assert torch.equal(w[:, stage + 1 :], w[:, :1].expand(-1, 9 - stage, -1))
        base, deltas = encoder.split(x)
        assert (deltas[:, 0] == 0).all() and (deltas[:, stage + 1 :] == 0).all()
        torch.testing.assert_close(base, heads[:, 0])


def test_psp_reads_every_row_from_its_own_head() -> None:
    encoder, x = small(kind="psp"), images()
    torch.testing.assert_close(encoder(x), encoder.w_avg + encoder.heads(x))


def test_larger_images_are_averaged_down() -> None:
    encoder, x = small(), images(1)
    large = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(encoder(large), encoder(x))


@pytest.mark.parametrize("changes", [{}, {"kind": "psp"}, {"stage": 4}])
def test_a_weight_file_rebuilds_the_encoder(tmp_path, changes) -> None:
    encoder, x = small(**changes), images()
    save_encoder(encoder, tmp_path / "e.safetensors", {}, half=False)
    loaded = load_encoder(tmp_path / "e.safetensors")
    assert isinstance(loaded, FullEncoder) and loaded.config == encoder.config and not loaded.training
    assert torch.equal(loaded(x), encoder(x))


def test_state_dict_names_rows_and_is_strict() -> None:
    encoder, other = small(), FullEncoder(SMALL)
    state = encoder.state_dict()
    assert {key.split(".")[1] for key in state if key.startswith("styles.")} == {str(i) for i in range(10)}
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), other.parameters(), strict=True))
    with pytest.raises(RuntimeError, match=r"styles\.3\.linear\.bias"):
        other.load_state_dict({k: v for k, v in state.items() if k != "styles.3.linear.bias"})
    with pytest.raises(RuntimeError, match=r"styles\.10\.linear\.bias"):
        other.load_state_dict(state | {"styles.10.linear.bias": torch.zeros(12)})
    with pytest.raises(RuntimeError, match=r"styles\.3\.linear\.bias"):
        other.load_state_dict(state | {"styles.3.linear.bias": torch.zeros(13)})


@pytest.mark.parametrize(
    "changes",
    [
        {"head_width": 256},
        {"num_rows": 7},
        {"side": 100},
        {"stage": 18},
        {"kind": "psp", "stage": 3},
        {"depths": (1, 2)},
    ],
)
def test_settings_that_cannot_work_are_refused(changes) -> None:
    with pytest.raises(ValueError):
        FullEncoderConfig(**changes)


def test_other_tensors_are_refused_in_one_sentence() -> None:
    """Names and shapes decide, so the test needs no tensors of full size."""
    with torch.device("meta"):
        full = FullEncoder(FullEncoderConfig(num_rows=14))
    public = {key: torch.zeros(()).expand(v.shape) for key, v in full.state_dict().items() if key != "w_avg"}
    for change, words in [
        ({"input_layer.0.weight": torch.zeros(64, 6, 3, 3)}, r"input_layer\.0\.weight is \(64, 6, 3, 3\)"),
        ({"latlayer3.weight": torch.zeros(1)}, r"latlayer3\.weight is \(1,\), expected nothing"),
        ({"styles.20.linear.bias": torch.zeros(512)}, "expected 0 to 17"),
        ({"input_layer.1.bias": torch.full((64,), torch.nan)}, "NaN"),
    ]:
        with pytest.raises(WeightsError, match=words) as error:
            from_public(public | change, torch.zeros(512))
        assert "\n" not in str(error.value)
    with pytest.raises(WeightsError, match="no heads"):
        from_public({"conv1.weight": torch.zeros(3)}, torch.zeros(512))
    with pytest.raises(WeightsError, match="latent_avg"):
        from_public(public, torch.zeros(18, 512))
    with pytest.raises(WeightsError, match=r"output_layer\.0\.bias is nothing"):
        identity_from_public({key: v for key, v in public.items() if key.startswith(("input", "body"))})


def test_identity_net_embeds_the_crop_as_unit_vectors() -> None:
    net = IdentityNet(BackboneConfig(**SMALL_BODY), width=6).eval()
    x = images(2, 256)
    vectors = net(x)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(vectors, net.embed(x[:, :, 35:223, 32:220]))
    outside = x.clone()
    outside[:, :, :35], outside[:, :, 223:], outside[..., :32], outside[..., 220:] = 0, 0, 0, 0
    torch.testing.assert_close(net(outside), vectors)
    with torch.device("meta"):
        full = IdentityNet()
    assert sum(p.numel() for p in full.parameters()) == 43_797_696
    assert full.output_layer[3].weight.shape == (512, 512 * 49)


def test_parameter_counts_at_full_size() -> None:
    """267.1 M parameters, 236 M in the heads, 621 tensors beside the mean latent, every one of them public."""
    rule = json.loads((GOLDEN / "e4e_256.json").read_text())
    with torch.device("meta"):
        encoder = FullEncoder(FullEncoderConfig())
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items() if key != "w_avg"}
    assert len(shapes) == 621
    assert {key: s for key, s in shapes.items() if not key.endswith(COUNTS)} == {
        key: tuple(shape) for key, shape, *_ in rule["rows"]
    }
    parameters = sum(p.numel() for p in encoder.parameters())
    assert parameters == 267_136_704 and round(parameters / 1e6, 1) == 267.1
    assert round(sum(p.numel() for p in encoder.styles.parameters()) / 1e6) == 236


@pytest.mark.slow
def test_reproduces_the_reference() -> None:
    """About 4 GB of memory and half a minute: all 267 M weights are drawn at random."""
    rule = json.loads((GOLDEN / "e4e_256.json").read_text())
    state = {}
    for key, shape, i, scale, shift in rule["rows"]:
        values = np.random.Generator(np.random.PCG64(rule["seed"] + i)).standard_normal(shape)
        values = values.astype(np.float32)
        values = np.abs(values) if "running_var" in key else values
        state[key] = torch.from_numpy(values * np.float32(scale) + np.float32(shift))
    noise = np.random.Generator(np.random.PCG64(9)).standard_normal((1, 3, 256, 256))
    x = torch.from_numpy(np.tanh(noise).astype(np.float32))
    encoder = from_public(state, torch.zeros(512))
    back = encoder.state_dict()
    assert all(torch.equal(back[key], value) for key, value in state.items())
    with np.load(GOLDEN / "e4e_256.npz") as expected, torch.inference_mode():
        np.testing.assert_allclose(encoder(x).numpy(), expected["w"], rtol=0, atol=1e-3)
        encoder.stage = 3
        np.testing.assert_allclose(encoder(x).numpy(), expected["w_stage3"], rtol=0, atol=1e-3)
