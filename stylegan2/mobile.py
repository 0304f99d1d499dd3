"""MobileStyleGAN: StyleGAN2 distilled into wavelet blocks (Belousov 2021, arXiv 2104.04767).

Shapes: N batch, L rows of W+, D = 512 latent width, C channels, R pixels of a side.

The networks differ from StyleGAN2 in three ways: features grow by an inverse Haar transform of modulated
channels, 3x3 convolutions are depthwise-separable, and demodulation is baked into the weights. The image is
made once, at the end, as the 12 Haar coefficients of an RGB picture of twice the feature size.

`MobileStyleGAN(resolution=1024)` is the whole student of the public 1024 px FFHQ model; a smaller resolution
stops after fewer blocks and carries an image head of its own, which is driven by all the W+ rows that the
removed blocks would have used, so that latents keep the row convention of a StyleGAN2 of that resolution.
"""

from __future__ import annotations

from math import log2, sqrt
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan2.layers import MAX_LAYERS
from stylegan2.protocol import NoiseMode

FULL_RESOLUTION = 1024
FEATURES = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64}


def inverse_haar(x_N4CHW: Tensor) -> Tensor:
    """Orthonormal inverse Haar transform: [N, 4C, R, R] -> [N, C, 2R, 2R].

    Channels are C averages, then for each of the C channels its vertical, horizontal and diagonal detail.
    """
    low, detail = x_N4CHW.split([x_N4CHW.shape[1] // 4, x_N4CHW.shape[1] * 3 // 4], dim=1)
    vertical, horizontal, diagonal = detail.unflatten(1, (-1, 3)).unbind(2)
    top, bottom = low + vertical, low - vertical
    left, right = horizontal + diagonal, horizontal - diagonal
    corners = torch.stack([top + left, top - left, bottom + right, bottom - right], dim=2)
    return F.pixel_shuffle(corners.flatten(1, 2) * 0.5, 2)


class ModulatedSeparable(nn.Module):
    """style -> scale channels -> depthwise k x k and 1x1 (or one dense k x k) -> + noise + bias -> leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, size: int, w_dim: int, separable: bool = True):
        super().__init__()
        self.affine = nn.Linear(w_dim, in_channels)
        if separable:
            self.conv = nn.Sequential(
                nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
            )
        else:
            self.conv = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False))
        self.bias = nn.Parameter(torch.zeros(out_channels, 1, 1))
        self.noise: Tensor
        self.register_buffer("noise", torch.zeros(1, 1, size, size))

    def forward(self, x_NCHW: Tensor, w_ND: Tensor, noise: NoiseMode) -> Tensor:
        x = self.conv(x_NCHW * self.affine(w_ND)[:, :, None, None]) + self.bias
        if noise == "const":
            x = x + self.noise
        elif noise == "random":  # the student learned one fixed pattern: keep its strength, redraw it
            x = x + self.noise.std() * torch.randn_like(x[:, :1])
        return F.leaky_relu(x, 0.2)


class WaveletBlock(nn.Module):
    """Modulate -> inverse Haar to twice the size -> two modulated separable convolutions."""

    def __init__(self, in_channels: int, out_channels: int, size: int, w_dim: int):
        super().__init__()
        self.up = nn.Linear(w_dim, in_channels)
        self.conv1 = ModulatedSeparable(in_channels // 4, out_channels, size, w_dim)
        self.conv2 = ModulatedSeparable(out_channels, out_channels, size, w_dim)

    def forward(self, x_NCHW: Tensor, w1_ND: Tensor, w2_ND: Tensor, noise: NoiseMode) -> Tensor:
        x = inverse_haar(x_NCHW * self.up(w1_ND)[:, :, None, None])
        return self.conv2(self.conv1(x, w1_ND, noise), w2_ND, noise)


class HaarHead(nn.Module):
    """Features -> image of twice their size: one modulated 1x1 convolution to 12 Haar coefficients.

    The style is the sum of one affine map per driving row: with a single row this is the student's own head.
    """

    def __init__(self, in_channels: int, rows: int, w_dim: int):
        super().__init__()
        self.affine = nn.ModuleList(nn.Linear(w_dim, in_channels) for _ in range(rows))
        self.conv = nn.Conv2d(in_channels, 12, 1)

    def style(self, w_NKD: Tensor) -> Tensor:
        """[N, K, D] -> [N, C]."""
        return torch.stack([affine(w_NKD[:, k]) for k, affine in enumerate(self.affine)]).sum(0)

    def forward(self, x_NCHW: Tensor, w_NKD: Tensor) -> Tensor:
        return inverse_haar(self.conv(x_NCHW * self.style(w_NKD)[:, :, None, None]))


class MappingNetwork(nn.Module):
    """z [N, D] -> w [N, D]: pixel norm, then fully connected layers with leaky ReLU and gain sqrt 2."""

    def __init__(self, layers: int, w_dim: int):
        super().__init__()
        if not 1 <= layers <= MAX_LAYERS:
            raise ValueError(f"a mapping network has 1 to {MAX_LAYERS} layers, got {layers}")
        self.layers = nn.ModuleList(nn.Linear(w_dim, w_dim) for _ in range(layers))

    def forward(self, z_ND: Tensor) -> Tensor:
        x = z_ND * (z_ND.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2) * sqrt(2)
        return x


class MobileStyleGAN(nn.Module):
    """Behind `protocol.Generator`; see the module's docstring.

    Args:
        resolution: side of the image in px, a power of two from 64 to 1024.
        mapping_layers, w_dim: of the mapping network.
    """

    def __init__(self, resolution: int = FULL_RESOLUTION, mapping_layers: int = 8, w_dim: int = 512):
        super().__init__()
        if resolution not in (64, 128, 256, 512, 1024):
            raise ValueError(f"resolution must be a power of two from 64 to 1024, got {resolution}")
        self.resolution, self.w_dim, self.mapping_layers = resolution, w_dim, mapping_layers
        self.num_rows = 2 * int(log2(resolution)) - 2
        sizes = [size for size in FEATURES if size < resolution]
        self.map = MappingNetwork(mapping_layers, w_dim)
        self.w_avg: Tensor
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.const = nn.Parameter(torch.randn(1, FEATURES[4], 4, 4))
        self.first = ModulatedSeparable(FEATURES[4], FEATURES[4], 4, w_dim, separable=False)
        self.blocks = nn.ModuleList(
            WaveletBlock(FEATURES[size // 2], FEATURES[size], size, w_dim) for size in sizes[1:]
        )
        # Blocks use rows 0 ... 2 * len(blocks); the head takes what is left (the uncut student: its last row).
        self.head_rows = [self.num_rows - 1] if resolution == FULL_RESOLUTION else [-3, -2, -1]
        self.head = HaarHead(FEATURES[sizes[-1]], len(self.head_rows), w_dim)

    @property
    def config(self) -> dict[str, int]:
        return {"resolution": self.resolution, "mapping_layers": self.mapping_layers, "w_dim": self.w_dim}

    def mapping(self, z_ND: Tensor) -> Tensor:
        return self.map(z_ND)

    def features(self, w_NLD: Tensor, noise: NoiseMode = "const") -> Tensor:
        """W+ -> features [N, C, resolution / 2, resolution / 2] that the image head reads."""
        x = self.first(self.const.expand(len(w_NLD), -1, -1, -1), w_NLD[:, 0], noise)
        for i, block in enumerate(self.blocks):
            x = cast(WaveletBlock, block)(x, w_NLD[:, 2 * i + 1], w_NLD[:, 2 * i + 2], noise)
        return x

    def synthesis(self, w_NLD: Tensor, noise: NoiseMode = "const") -> Tensor:
        """W+ [N, L, D] -> images [N, 3, R, R] in about [-1, 1]."""
        if w_NLD.ndim != 3 or w_NLD.shape[1:] != (self.num_rows, self.w_dim):
            raise ValueError(
                f"expected W+ of shape [N, {self.num_rows}, {self.w_dim}], got {list(w_NLD.shape)}"
            )
        return self.head(self.features(w_NLD, noise), w_NLD[:, self.head_rows])
