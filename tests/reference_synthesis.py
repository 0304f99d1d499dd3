"""StyleGAN2's synthesis as the public repositories compute it, written directly from the equations and slow.

Every sample gets its own kernel, applied by one grouped convolution; resampling is zero insertion, padding and a
dense filter; everything stays NCHW. Tests compare the images of `stylegan2.networks.generator` with these, and
`scripts/benchmark.py` the speed. It takes the parameters of a `StyleGAN2`, so both run on the same network.

Shapes: N images, I and O channels, D latent width, L rows of W+.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan2.networks.generator import StyleGAN2
from stylegan2.networks.layers import SynthesisLayer, ToRGB


def upfirdn2d(x_NCHW: Tensor, up: int, pad: tuple[int, int], gain: float) -> Tensor:
    """Inserts up - 1 zeros after each pixel, pads before and after, filters with [1, 3, 3, 1] outer itself / 64."""
    n, c, h, w = x_NCHW.shape
    x = x_NCHW.reshape(n * c, 1, h, 1, w, 1)
    x = F.pad(x, [0, up - 1, 0, 0, 0, up - 1]).reshape(n * c, 1, h * up, w * up)
    x = F.pad(x, [pad[0], pad[1], pad[0], pad[1]])
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / 8
    x = F.conv2d(x, (gain * taps[:, None] * taps[None]).flip(0, 1)[None, None])
    return x.reshape(n, c, *x.shape[2:])


def modulated_conv(
    x_NIHW: Tensor, weight_OIKK: Tensor, style_NI: Tensor, demodulate: bool, up: bool
) -> Tensor:
    """w'_noikk = s_ni w_oikk, over its norm if demodulated (StyleGAN2, eq. 1 and 3), one group for each sample."""
    n, i, h, w = x_NIHW.shape
    weight = weight_OIKK[None] * style_NI[:, None, :, None, None]
    if demodulate:
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    o, k = weight.shape[1], weight.shape[-1]
    x = x_NIHW.reshape(1, n * i, h, w)
    if up:
        weight = weight.transpose(1, 2).reshape(n * i, o, k, k)
        x = F.conv_transpose2d(x, weight, stride=2, groups=n)
        return upfirdn2d(x.reshape(n, o, *x.shape[2:]), 1, (1, 1), 4.0)
    x = F.conv2d(x, weight.reshape(n * o, i, k, k), padding=k // 2, groups=n)
    return x.reshape(n, o, h, w)


def layer(part: SynthesisLayer, x: Tensor, w_ND: Tensor) -> Tensor:
    x = modulated_conv(x, part.weight, part.affine(w_ND), demodulate=True, up=part.up)
    x = x + part.noise_const * part.noise_strength
    x = F.leaky_relu(x + part.bias[:, None, None], 0.2) * math.sqrt(2)
    return x if part.clamp is None else x.clamp(-part.clamp, part.clamp)


def to_rgb(part: ToRGB, x: Tensor, w_ND: Tensor) -> Tensor:
    style_NI = part.affine(w_ND) / math.sqrt(x.shape[1])
    x = modulated_conv(x, part.weight, style_NI, demodulate=False, up=False) + part.bias[:, None, None]
    return x if part.clamp is None else x.clamp(-part.clamp, part.clamp)


def reference_synthesis(generator: StyleGAN2, w_NLD: Tensor) -> Tensor:
    """W+ (N, L, D) -> images (N, 3, H, W), with constant noise."""
    blocks: list[Any] = [generator.synthesis.get_submodule(f"b{size}") for size in generator.synthesis.sizes]
    x = blocks[0].const.expand(len(w_NLD), -1, -1, -1)
    x = layer(blocks[0].conv1, x, w_NLD[:, 0])
    image = to_rgb(blocks[0].torgb, x, w_NLD[:, 1])
    for k, block in enumerate(blocks[1:], start=1):
        x = layer(block.conv0, x, w_NLD[:, 2 * k - 1])
        x = layer(block.conv1, x, w_NLD[:, 2 * k])
        image = upfirdn2d(image, 2, (2, 1), 4.0) + to_rgb(block.torgb, x, w_NLD[:, 2 * k + 1])
    return image
