"""ReStyle: the loop, the two kinds, files and refusals on small networks; the public sizes without memory."""

from typing import Literal

import numpy as np
import pytest
import torch
from test_e4e_full import SMALL_BODY, images, one_head

from encoders.e4e import load_encoder, save_encoder
from encoders.invert import InversionConfig, invert_frames, start_codes
from encoders.restyle import ReStyle, ReStyleConfig, restyle_from_public
from stylegan2.generator import StyleGAN2
from stylegan2.images import resize, to_uint8
from stylegan2.weights import WeightsError, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")


def small(kind: Literal["e4e", "psp"] = "e4e", **changes) -> ReStyle:
    torch.manual_seed(0)
    sizes = {"num_rows": 6, "w_dim": 12, "side": 64, **SMALL_BODY} | changes
    return ReStyle(ReStyleConfig(kind=kind, **sizes), torch.randn(12)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    torch.manual_seed(1)
    made = StyleGAN2(16, z_dim=8, w_dim=12, channels={4: 8, 8: 8, 16: 4}, mapping_layers=2)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["e4e", "psp"])
def test_every_head_reads_the_last_feature_map(kind) -> None:
    encoder, x, made = small(kind), images(), images().flip(2)
    state = encoder.state_dict()
    features = encoder.body(encoder.input_layer(torch.cat([x, made], dim=1)))
    assert features.shape[-1] == 4
    heads = torch.stack([one_head(state, row, features) for row in range(6)], 1)
    expected = heads if kind == "psp" else torch.cat([heads[:, :1], heads[:, :1] + heads[:, 1:]], 1)
    torch.testing.assert_close(encoder(x, made), expected, atol=1e-5, rtol=1e-4)


def test_the_image_comes_first_and_any_size_is_taken() -> None:
    encoder, x, made = small(), images(), images().flip(2)
    encoder.input_layer[0].weight[:, 3:] = 0  # type: ignore[index]  # blind to the reconstruction
    assert torch.equal(encoder(x, made), encoder(x, x)) and not torch.allclose(
        encoder(x, made), encoder(made, made)
    )
    large = x.repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(encoder(large, resize(made, 32)), encoder(x, made))


@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_each_step_corrects_the_last_code_by_its_image(generator, iterations) -> None:
    encoder, x, rendered = small(), images(3), []

    def synthesis(w):
        rendered.append(len(w))
        return generator.synthesis(w)

    w = encoder.w_avg.expand(3, -1, -1)
    for _ in range(iterations):
        w = w + encoder(x, generator.synthesis(w))
    torch.testing.assert_close(encoder.invert(x, synthesis, iterations), w, atol=1e-4, rtol=1e-4)
    assert rendered == [1, *[3] * (iterations - 1)]  # the mean's image once, the last code's never


def test_a_reached_image_is_a_fixed_point(generator) -> None:
    """Heads that say nothing leave the mean latent; w_avg is that of the encoder's file."""
    encoder, x = small("psp"), images()
    for level in encoder.styles.levels:
        level.linear.zero_(), level.linear_bias.zero_()  # type: ignore[operator]
    found = encoder.invert(x, generator.synthesis, 3)
    assert torch.equal(found, encoder.w_avg.expand(2, -1, -1))


def test_inversion_takes_it_as_it_takes_the_others(generator) -> None:
    encoder, frames = small(), to_uint8(images(5))
    config = InversionConfig(iterations=2, chunk=2)
    codes = torch.cat(list(invert_frames(frames, encoder, generator, config)))
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = encoder.invert(x, generator.synthesis, 2)
    assert codes.shape == (5, 6, 12)
    torch.testing.assert_close(codes, expected, atol=1e-4, rtol=1e-4)
    more = start_codes(x, encoder, generator, InversionConfig(iterations=3))
    assert not torch.allclose(more, expected)
    with pytest.raises(ValueError, match="iterations"):
        InversionConfig(iterations=0)
    with pytest.raises(ValueError, match="W\\+ latents"):
        start_codes(x, small(num_rows=8), generator, config)


@pytest.mark.parametrize("kind", ["e4e", "psp"])
def test_a_weight_file_rebuilds_it(tmp_path, kind) -> None:
    encoder, x = small(kind), images()
    save_encoder(encoder, tmp_path / "r.safetensors", {}, half=False)
    loaded = load_encoder(tmp_path / "r.safetensors")
    assert isinstance(loaded, ReStyle) and loaded.config == encoder.config and not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(loaded(x, x.flip(2)), encoder(x, x.flip(2)))
    assert torch.equal(loaded.w_avg, encoder.w_avg)


def test_files_that_do_not_fit_are_refused(tmp_path) -> None:
    encoder, path = small(), tmp_path / "r.safetensors"
    for config, words in [
        ({"kind": "psp2"}, "does not build a restyle network"),
        ({"num_rows": 10**9}, "does not build a restyle network"),
        ({"depths": (1, 1, 2, 10**9)}, "does not build a restyle network"),
        ({"num_rows": 7}, "does not fit its own config"),
        ({"w_dim": 10**8}, "does not fit its own config"),
    ]:
        save_weights(encoder, path, "restyle", encoder.file_config() | config)
        with pytest.raises(WeightsError, match=words) as caught:
            load_encoder(path)
        assert "r.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_public_tensors_are_judged_by_names_and_shapes() -> None:
    with torch.device("meta"):
        full = ReStyle(ReStyleConfig())
    shapes = {key: tuple(value.shape) for key, value in full.state_dict().items() if key != "w_avg"}
    assert shapes["input_layer.0.weight"] == (64, 6, 3, 3)
    assert {key: shapes[f"styles.17.{key}"] for key in ("convs.6.weight", "linear.weight")} == {
        "convs.6.weight": (512, 512, 3, 3),
        "linear.weight": (512, 512),
    }
    assert not any("latlayer" in key or "convs.8" in key for key in shapes)
    public = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    for change, words in [
        ({"input_layer.0.weight": torch.zeros(64, 3, 3, 3)}, r"input_layer\.0\.weight is \(64, 3, 3, 3\)"),
        ({"latlayer1.weight": torch.zeros(1)}, r"latlayer1\.weight is \(1,\), expected nothing"),
        ({"styles.20.linear.bias": torch.zeros(512)}, "expected 0 to 17"),
        ({"input_layer.1.bias": torch.full((64,), torch.nan)}, "NaN"),
    ]:
        with pytest.raises(WeightsError, match=words) as caught:
            restyle_from_public(public | change, torch.zeros(512), "e4e")
        assert "ReStyle" in str(caught.value) or "NaN" in words
        assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="latent_avg"):
        restyle_from_public(public, torch.zeros(17, 512), "psp")


def test_frames_are_what_the_loop_sees(generator) -> None:
    """A known answer: an 'encoder' that reads the error's mean, and a generator that shows its code, meet in one step."""

    class Exact(ReStyle):
        def forward(self, images_N3HW, made_N3HW):
            return (images_N3HW - made_N3HW).mean((1, 2, 3))[:, None, None].expand(-1, 6, 12)

    torch.manual_seed(0)
    encoder = Exact(ReStyleConfig(num_rows=6, w_dim=12, side=64, **SMALL_BODY), torch.zeros(12))
    x = torch.full((2, 3, 8, 8), 0.25)
    x[1] = -0.5

    def shows_its_code(w):
        return w.mean((1, 2))[:, None, None, None].expand(-1, 3, 8, 8)

    for iterations in (1, 4):
        found = encoder.invert(x, shows_its_code, iterations)
        np.testing.assert_allclose(found[:, 0, 0].numpy(), [0.25, -0.5], atol=1e-6)
