"""The resampling filter and the activation against closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F

from stylegan2.networks.ops import bias_act, blur, upsample2

pytestmark = pytest.mark.usefixtures("one_thread")


def test_upsample_is_bilinear_of_the_padded_image():
    x = torch.randn(2, 3, 7, 5)
    bilinear = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(upsample2(x), bilinear[..., 2:-2, 2:-2], atol=1e-6)
    assert not torch.allclose(upsample2(x), F.interpolate(x, scale_factor=2, mode="bilinear"), atol=1e-3)


def test_filters_keep_a_constant_and_downsampling_is_the_transpose_of_upsampling():
    def downsample(x):
        return blur(x, padding=1, stride=2)

    ones = torch.ones(1, 2, 8, 8)
    assert torch.allclose(upsample2(ones)[..., 2:-2, 2:-2], torch.ones(()))
    assert torch.allclose(downsample(ones)[..., 1:-1, 1:-1], torch.ones(()))
    x, y = torch.randn(1, 2, 8, 8), torch.randn(1, 2, 16, 16)
    assert torch.allclose((upsample2(x) * y).sum(), 4 * (x * downsample(y)).sum(), rtol=1e-4)


def test_blur_of_a_point_is_the_filter():
    point = torch.zeros(1, 1, 7, 7)
    point[0, 0, 3, 3] = 64
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    assert torch.equal(blur(point, padding=0)[0, 0], torch.outer(taps, taps))


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_gradients_of_blur_are_those_of_the_convolution(padding):
    torch.manual_seed(0)
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, b: blur(x, padding, 4.0, bias_C=b), (x, bias))
    assert torch.autograd.gradgradcheck(lambda x, b: blur(x, padding, 4.0, bias_C=b), (x, bias))


def test_bias_act_closed_form():
    x = torch.tensor([[1.0, -3.0]])
    result = bias_act(x, torch.tensor([1.0, 1.0]))
    assert torch.allclose(result, torch.tensor([[2.0, -0.4]]) * math.sqrt(2))
    assert bias_act(x, torch.zeros(2), clamp=0.5).abs().max() == 0.5
