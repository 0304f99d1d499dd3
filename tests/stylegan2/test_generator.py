"""The StyleGAN2 generator against naive formulas, finite differences and identities."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference_synthesis import reference_synthesis

from stylegan2.load import load_generator
from stylegan2.networks.discriminator import Discriminator
from stylegan2.networks.generator import StyleGAN2, channel_table
from stylegan2.networks.layers import SynthesisLayer
from stylegan2.networks.ops import bias_act, blur
from stylegan2.protocol import Generator, repeat_rows, sample_w, truncate
from stylegan2.weights import WeightsError

pytestmark = pytest.mark.usefixtures("one_thread")


TINY = {4: 8, 8: 6, 16: 8, 32: 4}


def tiny(seed=0, resolution=32, **options):
    """A small generator whose noise, biases and w_avg are not at their neutral initial values."""
    torch.manual_seed(seed)
    channels = {size: TINY[size] for size in TINY if size <= resolution}
    generator = StyleGAN2(resolution, z_dim=16, w_dim=12, channels=channels, mapping_layers=3, **options)
    for name, parameter in generator.named_parameters():
        if name.endswith(("bias", "noise_strength")):
            torch.nn.init.normal_(parameter, std=0.3)
    generator.mapping.estimate_w_avg(100)
    return generator.eval().requires_grad_(False)


@pytest.mark.parametrize("up", [False, True])
def test_synthesis_layer_is_the_convolution_with_per_sample_weights(up):
    """StyleGAN2, eq. 1 and 3, one sample at a time, with the modulated and demodulated weights written out."""
    torch.manual_seed(0)
    layer = SynthesisLayer(5, 7, w_dim=6, resolution=16 if up else 8, up=up)
    x, w = torch.randn(3, 5, 8, 8), torch.randn(3, 6)
    result = layer(x, w, noise="none")
    for n in range(3):
        style = layer.affine(w[n : n + 1])[0]
        weight = layer.weight * style[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            y = F.conv_transpose2d(x[n : n + 1], weight.transpose(0, 1), stride=2)
            y = blur(y, padding=1, gain=4)
        else:
            y = F.conv2d(x[n : n + 1], weight, padding=1)
        assert torch.allclose(result[n : n + 1], bias_act(y, layer.bias), atol=1e-5)


@pytest.mark.parametrize("clamp", [None, 0.5])
def test_synthesis_equals_the_formulation_with_one_kernel_for_each_sample(clamp):
    torch.manual_seed(0)
    generator = StyleGAN2(64, w_dim=32, channels={4: 16, 8: 16, 16: 12, 32: 8, 64: 4}, conv_clamp=clamp)
    for layer in generator.modules():
        if isinstance(layer, SynthesisLayer):
            torch.nn.init.constant_(layer.noise_strength, 0.3)
    w = torch.randn(3, generator.num_rows, 32)
    with torch.inference_mode():
        torch.testing.assert_close(
            generator.synthesis(w), reference_synthesis(generator, w), atol=1e-4, rtol=1e-4
        )


def wide_and_embedded() -> list[Any]:
    torch.manual_seed(0)
    return [StyleGAN2(256, channels={2**k: 16 for k in range(2, 9)}), load_generator("embedded")]


def test_half_precision_keeps_the_picture_in_float32():
    """Convolutions run in bf16; styles, RGB and its sum over sizes are not rounded. Config F reaches 40 dB (benchmark.py), a
    network as narrow as this one less."""
    for generator in wide_and_embedded():
        w = sample_w(generator, 2, seed=0, psi=0.7)
        with torch.inference_mode():
            exact = generator.synthesis(w)
            generator.compute_in(torch.bfloat16)
            result = generator.synthesis(w)
            resumed = generator.synthesis(w[:1], start=generator.start(w[0], 6))
            generator.compute_in(None)
            assert torch.equal(generator.synthesis(w), exact)
        assert result.dtype == torch.float32 and not torch.equal(result, exact)
        error = (result - exact).square().sum() / exact.square().sum()
        assert -10 * error.log10() > 36
        assert (resumed - result[:1]).abs().max() < 0.05  # batches of one and two round differently


@pytest.mark.parametrize("half", [None, torch.bfloat16])
def test_checkpointed_activations_give_the_same_gradients_from_less_memory(half):
    for generator in wide_and_embedded():
        w = sample_w(generator, 1, seed=0, psi=0.7)
        generator.compute_in(half)
        gradients, stored_bytes = [], []
        for on in (False, True):
            generator.requires_grad_(True).zero_grad(set_to_none=True)
            generator.checkpoint_activations(on)
            sizes: dict[int, int] = {}

            def pack(x: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
                sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
                return x

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
                loss = generator.synthesis(w).square().mean()
            parameter_storages = {p.untyped_storage().data_ptr() for p in generator.parameters()}
            stored_bytes.append(
                sum(size for address, size in sizes.items() if address not in parameter_storages)
            )
            loss.backward()
            gradients.append({name: p.grad for name, p in generator.named_parameters() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys()
        for name, expected in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], expected, atol=1e-6, rtol=1e-4)
        assert stored_bytes[1] < stored_bytes[0] / 3, stored_bytes


def test_published_sizes():
    generator, discriminator = StyleGAN2(1024), Discriminator(1024)
    assert sum(p.numel() for p in generator.parameters()) == 30_370_060
    assert sum(p.numel() for p in discriminator.parameters()) == 29_012_513
    assert generator.num_rows == 18
    assert channel_table(1024)[128] == 256 and channel_table(1024)[1024] == 32


@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_everything_is_inferred_from_the_weights(resolution):
    generator = tiny(resolution=resolution)
    state = generator.state_dict() | {"synthesis.b8.resample_filter": torch.ones(4, 4)}
    again = StyleGAN2.from_state_dict(state)
    assert again.config == generator.config
    w = sample_w(generator, 2, seed=0)
    assert w.shape == (2, 2 * int(math.log2(resolution)) - 2, 12)
    assert torch.equal(again.synthesis(w), generator.synthesis(w))
    assert isinstance(again, Generator)


def test_a_missing_w_avg_is_estimated_and_other_gaps_are_refused():
    state = dict(tiny().state_dict())
    average = state.pop("mapping.w_avg")
    estimated = StyleGAN2.from_state_dict(state).w_avg
    assert (estimated - average).abs().max() < 0.5 * average.abs().max() + 0.05
    for broken in ({}, {"a": torch.zeros(1)}, {k: v for k, v in state.items() if "b16.conv0" not in k}):
        with pytest.raises(WeightsError, match="StyleGAN2"):
            StyleGAN2.from_state_dict(broken)


def test_truncation():
    w, average = torch.randn(3, 12), torch.randn(12)
    assert torch.equal(truncate(w, average, 0.0), average.expand(3, 12))
    assert torch.allclose(truncate(w, average, 1.0), w, atol=1e-6)
    assert torch.allclose(truncate(w, average, 2.0) - average, 2 * (w - average), atol=1e-5)


def test_samples_depend_on_the_seed_alone():
    generator = tiny()
    two, nine = sample_w(generator, 2, seed=5), sample_w(generator, 9, seed=5)
    assert torch.allclose(two, nine[:2], atol=1e-6)
    assert torch.equal(two[:, 0], two[:, -1])
    assert not torch.allclose(two, sample_w(generator, 2, seed=6), atol=1e-3)
    assert torch.allclose(sample_w(generator, 1, seed=5, psi=0.0)[0, 0], generator.w_avg, atol=1e-6)


def test_noise_modes():
    generator, w = tiny(), sample_w(tiny(), 1, seed=0)
    constant, none = generator.synthesis(w), generator.synthesis(w, noise="none")
    assert torch.equal(constant, generator.synthesis(w, noise="const"))
    assert not torch.allclose(constant, none)
    first, second = generator.synthesis(w, noise="random"), generator.synthesis(w, noise="random")
    assert not torch.allclose(first, second)
    with pytest.raises(ValueError, match="noise"):
        generator.synthesis(w, noise="loud")


def test_rows_reach_their_layers():
    """Row l of W+ changes the image, and coarse rows change more than the last RGB row alone."""
    generator, w = tiny(), sample_w(tiny(), 1, seed=0)
    image = generator.synthesis(w)
    for row in range(generator.num_rows):
        moved = w.clone()
        moved[:, row] += 1
        assert not torch.allclose(generator.synthesis(moved), image, atol=1e-4), row


def test_conv_clamp_bounds_the_activations():
    generator = tiny(conv_clamp=0.01)
    image = generator.synthesis(sample_w(generator, 1, seed=0))
    assert image.abs().max() <= 0.01 * len(TINY) * 4  # every RGB layer is clamped, upsampling at most doubles


def test_gradients_reach_latents_through_frozen_weights():
    generator = tiny()
    w = sample_w(generator, 2, seed=0).requires_grad_(True)
    (gradient,) = torch.autograd.grad(generator.synthesis(w)[0].square().sum(), w)
    assert (gradient[0].abs().sum(-1) > 0).all() and (gradient[1] == 0).all()


def test_gradient_is_the_derivative():
    generator = tiny(resolution=8).double()
    w = repeat_rows(torch.randn(1, 12, dtype=torch.float64), generator.num_rows)
    direction = torch.randn_like(w)
    w.requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy(generator, w), w)
    h = 1e-6
    slope = (energy(generator, w + h * direction) - energy(generator, w - h * direction)) / (2 * h)
    assert slope.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-6)


def energy(generator, w):
    return generator.synthesis(w).square().mean()


def test_latents_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(N, 8, 12\).*\(1, 10, 12\)"):
        tiny().synthesis(torch.zeros(1, 10, 12))
    with pytest.raises(ValueError, match="power of two"):
        StyleGAN2(96)
    with pytest.raises(ValueError, match="channels"):
        StyleGAN2(16, channels={4: 8, 8: 8})


@torch.no_grad()
def test_bfloat16_autocast_stays_near_float32():
    """On a tiny network, because a CPU without bfloat16 instructions takes minutes for a real one."""
    generator = tiny()
    w = sample_w(generator, 2, seed=0)
    expected = generator.synthesis(w)
    with torch.autocast("cpu", torch.bfloat16):
        image = generator.synthesis(w)
    assert image.dtype == torch.float32 and not torch.equal(image, expected)
    assert (image - expected).abs().mean() < 0.02 * expected.std()
