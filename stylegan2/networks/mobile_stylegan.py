"""MobileStyleGAN: StyleGAN2 distilled into wavelet blocks (Belousov 2021, arXiv 2104.04767).

Shapes: N batch, L rows of W+, D = 512 latent width, C channels, I and O input and output channels, H = W pixels of a
side, P pixels of an image. Features are NHWC, because the 1x1 convolutions, which take nearly all the time, are then
plain matrix products.

The network differs from StyleGAN2 in three ways: features are upsampled by an inverse Haar transform of modulated
channels, 3x3 convolutions are depthwise-separable, and demodulation is folded into the weights. Only the last layer
makes an image.

`MobileStyleGAN(resolution=1024)` is the uncut network, distilled from the public 1024 px FFHQ model; its head predicts
the 12 Haar coefficients of an RGB image of twice the feature size. At a smaller resolution the network is cut after the
block of that size and has an RGB head there, so it has as many rows of W+ as a StyleGAN2 of that resolution.
"""

from __future__ import annotations

from math import log2, sqrt
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan2.networks.layers import MAX_LAYERS
from stylegan2.networks.mobile_ops import SLOPE, depthwise, inverse_haar, nchw, nhwc, pointwise, upsample
from stylegan2.networks.ops import full_precision, run_block
from stylegan2.protocol import NoiseMode, Start

FULL_RESOLUTION = 1024
FEATURES = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64}


class ModulatedConv(nn.Module):
    """Modulated convolution (depthwise 3x3 and 1x1, or one dense 3x3), bias, noise, leaky ReLU.

    The style scales the channels between the two convolutions, which is equivalent as a depthwise one mixes no channels.
    """

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

    def forward(self, x_NHWC: Tensor, w_ND: Tensor, noise: NoiseMode) -> Tensor:
        style_NI, bias_O = self.affine(w_ND), self.bias.flatten()
        noise_NHW = self.noise[0].expand(len(w_ND), -1, -1)
        if noise == "random":  # new noise of the same strength as the learned pattern
            noise_NHW = self.noise.std() * torch.randn_like(noise_NHW)
        elif noise == "none":
            noise_NHW = torch.zeros_like(noise_NHW)
        first, *mix = (cast(nn.Conv2d, part) for part in self.conv)
        if mix:
            x = depthwise(x_NHWC, first.weight)
            return pointwise(x, mix[0].weight[:, :, 0, 0], style_NI, bias_O, noise_NHW)
        x = nhwc(first(nchw(x_NHWC * style_NI[:, None, None]))) + bias_O + noise_NHW[..., None]
        return F.leaky_relu(x, SLOPE)


class WaveletBlock(nn.Module):
    """Modulation, inverse Haar transform to twice the size, two modulated separable convolutions."""

    def __init__(self, in_channels: int, out_channels: int, size: int, w_dim: int):
        super().__init__()
        self.up = nn.Linear(w_dim, in_channels)
        self.conv1 = ModulatedConv(in_channels // 4, out_channels, size, w_dim)
        self.conv2 = ModulatedConv(out_channels, out_channels, size, w_dim)

    def forward(self, x_NHWC: Tensor, w1_ND: Tensor, w2_ND: Tensor, noise: NoiseMode) -> Tensor:
        x = upsample(x_NHWC, self.up(w1_ND))
        return self.conv2(self.conv1(x, w1_ND, noise), w2_ND, noise)


class ImageHead(nn.Module):
    """Features -> float32 image channels (N, H, W, O) by one modulated 1x1 convolution with bias."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int):
        super().__init__()
        self.affine = nn.Linear(w_dim, in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x_NHWC: Tensor, w_ND: Tensor) -> Tensor:
        x = pointwise(x_NHWC, self.conv.weight[:, :, 0, 0], self.affine(w_ND))
        return x + cast(Tensor, self.conv.bias)  # in float32


class MappingNetwork(nn.Module):
    """z (N, D) -> w (N, D): pixel norm, then fully connected layers with leaky ReLU and gain sqrt 2."""

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
    """Implements `stylegan2.protocol.Generator`; see the module's docstring.

    resolution: side of the image in px, a power of two from 64 to 512, or 1024 for the uncut network.
    mapping_layers, w_dim: of the mapping network.
    num_rows: rows L of its latents (None: 2 log2(resolution) - 2). If the latents have fewer rows, missing rows are
    copies of the last one, so that latents of a 256 px generator (14 rows) can be rendered at 1024 px.
    """

    def __init__(
        self,
        resolution: int = FULL_RESOLUTION,
        mapping_layers: int = 8,
        w_dim: int = 512,
        num_rows: int | None = None,
    ):
        super().__init__()
        if resolution not in (64, 128, 256, 512, 1024):
            raise ValueError(f"resolution must be a power of two from 64 to 1024, got {resolution}")
        own_rows = 2 * int(log2(resolution)) - 2
        self.num_rows = own_rows if num_rows is None else num_rows
        if not 1 <= self.num_rows <= own_rows:
            raise ValueError(f"num_rows must be from 1 to {own_rows} at {resolution} px, got {num_rows}")
        self.resolution, self.w_dim, self.mapping_layers = resolution, w_dim, mapping_layers
        self.half: torch.dtype | None = None
        self.recompute = False
        sizes = [size for size in FEATURES if size <= resolution]
        self.map = MappingNetwork(mapping_layers, w_dim)
        self.w_avg: Tensor
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.const = nn.Parameter(torch.randn(1, FEATURES[4], 4, 4))
        self.first = ModulatedConv(FEATURES[4], FEATURES[4], 4, w_dim, separable=False)
        self.blocks = nn.ModuleList(
            WaveletBlock(FEATURES[size // 2], FEATURES[size], size, w_dim) for size in sizes[1:]
        )
        self.wavelet_head = resolution == FULL_RESOLUTION
        self.head = ImageHead(FEATURES[sizes[-1]], 12 if self.wavelet_head else 3, w_dim)

    @property
    def config(self) -> dict[str, int]:
        """The constructor's keyword arguments."""
        return {
            "resolution": self.resolution,
            "mapping_layers": self.mapping_layers,
            "w_dim": self.w_dim,
            "num_rows": self.num_rows,
        }

    def mapping(self, z_ND: Tensor) -> Tensor:
        """z (N, D) -> w (N, D)."""
        return self.map(z_ND)

    def compute_in(self, half: torch.dtype | None) -> None:
        """Computes synthesis in half precision, with float32 weights and images; None: in float32."""
        self.half = half

    def checkpoint_activations(self, on: bool) -> None:
        """Gradient checkpointing (Chen et al. 2016): stores one block's activations, at the cost of a second forward."""
        self.recompute = on

    def features(self, w_NLD: Tensor, noise: NoiseMode = "const", start: Start | None = None) -> Tensor:
        """W+ -> features (N, H, W, C) before the image head."""
        start = start or Start(0, nhwc(self.const))
        x, _ = start.repeated(len(w_NLD))
        assert x is not None
        return self._blocks(x, w_NLD, noise, range(start.blocks, 1 + len(self.blocks)))

    @torch.no_grad()
    def start(self, w_LD: Tensor, rows: int) -> Start:
        """The result of those blocks that read only the first `rows` rows of w_LD, with constant noise."""
        blocks = (rows + 1) // 2 if rows < self.num_rows else 1 + len(self.blocks)
        with full_precision(w_LD):
            return Start(blocks, self._blocks(nhwc(self.const), w_LD[None], "const", range(blocks)))

    def _blocks(self, x: Tensor, w_NLD: Tensor, noise: NoiseMode, blocks: range) -> Tensor:
        """Block 0 is the first convolution and reads row 0; block i > 0 reads rows 2i - 1 and 2i.

        The 4 x 4 pixels of block 0 take no time in float32; the others keep their features in `half`.
        """
        for i in blocks:
            if i == 0:
                x = run_block(self.first, self.recompute, x, w_NLD[:, 0], noise)
            else:
                rows = self.row(w_NLD, 2 * i - 1), self.row(w_NLD, 2 * i)
                x = run_block(
                    self.blocks[i - 1], self.recompute, x.to(self.half or w_NLD.dtype), *rows, noise
                )
        return x

    def row(self, w_NLD: Tensor, index: int) -> Tensor:
        """Row `index` of W+, (N, D), or the last one if the latents have fewer rows."""
        return w_NLD[:, min(index, self.num_rows - 1)]

    def synthesis(self, w_NLD: Tensor, noise: NoiseMode = "const", start: Start | None = None) -> Tensor:
        """W+ (N, L, D) -> images (N, 3, R, R) in about [-1, 1]. start: the result of the first blocks, if known."""
        if w_NLD.ndim != 3 or w_NLD.shape[1:] != (self.num_rows, self.w_dim):
            raise ValueError(
                f"expected W+ of shape [N, {self.num_rows}, {self.w_dim}], got {list(w_NLD.shape)}"
            )
        with full_precision(w_NLD):
            image = self.head(self.features(w_NLD, noise, start), self.row(w_NLD, 2 * len(self.blocks) + 1))
        return nchw(inverse_haar(image) if self.wavelet_head else image).contiguous()
