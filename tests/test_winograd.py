"""stylegan2/winograd.py equals PyTorch's convolution for every size, its gradients and the gradients of those too."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from stylegan2 import winograd
from stylegan2.layers import SynthesisLayer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def avx2(monkeypatch):
    """Decides as on a CPU without AVX-512, whichever this is."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 14),
    st.integers(1, 14),
    st.booleans(),
)
def test_equals_conv2d_at_any_size(n, i, o, h, w, biased):
    torch.manual_seed(0)
    x, weight = torch.randn(n, i, h, w, dtype=torch.float64), torch.randn(o, i, 3, 3, dtype=torch.float64)
    bias = torch.randn(o, dtype=torch.float64) if biased else None
    torch.testing.assert_close(winograd.conv3x3(x, weight, bias), F.conv2d(x, weight, bias, padding=1))


def test_bands_meet_without_a_seam(monkeypatch):
    x, weight = torch.randn(2, 3, 40, 24).double(), torch.randn(4, 3, 3, 3).double()
    whole = winograd.conv3x3(x, weight)
    for band in (1, 7, 12):  # rows of six tiles: one at a time, and two
        monkeypatch.setattr(winograd, "BAND", band)
        torch.testing.assert_close(winograd.conv3x3(x, weight), whole)


def test_float32_loses_little():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 256, 64, 64), torch.randn(256, 256, 3, 3) / (9 * 256) ** 0.5
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    assert winograd.pays(x, weight)
    assert (winograd.conv3x3(x, weight) - exact).abs().max() < 5e-5


def test_gradients_of_both_orders():
    torch.manual_seed(0)
    shapes = ((1, 2, 5, 2), (2, 2, 3, 3), (2,))
    arguments = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    assert torch.autograd.gradcheck(winograd.conv3x3, arguments)
    assert torch.autograd.gradgradcheck(winograd.conv3x3, arguments)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_layer_that_uses_it_is_the_same_layer(batch, monkeypatch):
    """Values and gradients of one large layer, with and without; twice differentiable in between."""
    torch.manual_seed(0)
    layer = SynthesisLayer(256, 256, w_dim=8, resolution=64)
    torch.nn.init.constant_(layer.noise_strength, 0.1)
    x, w = torch.randn(batch, 256, 64, 64), torch.randn(batch, 8, requires_grad=True)

    def found() -> list[torch.Tensor]:
        y = layer(x, w, "const")
        return [y, *torch.autograd.grad(y.square().mean(), [w, *layer.parameters()])]

    used = []
    plain_rule = winograd.pays
    monkeypatch.setattr(winograd, "pays", lambda *a: used.append(plain_rule(*a)) or used[-1])
    fast = found()
    monkeypatch.setattr(winograd, "pays", lambda *_: False)
    assert used == [True]
    for ours, true in zip(fast, found(), strict=True):
        torch.testing.assert_close(ours, true, atol=1e-4, rtol=1e-3)


def test_where_it_is_used(monkeypatch):
    large, weight = torch.empty(1, 256, 128, 128), torch.empty(256, 256, 3, 3)
    assert winograd.pays(large, weight)
    assert not winograd.pays(large[..., :32, :32], weight)
    assert not winograd.pays(large.double(), weight.double())
    assert not winograd.pays(large.to("meta"), weight.to("meta"))
    assert not winograd.pays(torch.empty(1, 128, 256, 256), torch.empty(128, 128, 3, 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.pays(large, weight)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not winograd.pays(large, weight)


def test_transforms_multiply_polynomials():
    """A^T ((G g) * (B^T d)) is the correlation of d and g: the definition of F(4, 3), in exact arithmetic."""
    random = np.random.default_rng(0)
    d, g = random.integers(-9, 9, 6), random.integers(-9, 9, 3)
    found = winograd.A_T.numpy() @ ((winograd.G.numpy() @ g) * (winograd.B_T.numpy() @ d))
    np.testing.assert_allclose(found, np.correlate(d, g), atol=1e-12)
