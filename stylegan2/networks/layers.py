"""The layers of StyleGAN2, with an equalised learning rate: weights are stored with variance 1 and scaled when used.

Shapes: N images, C or I input channels, O output channels, D latent width, H x W pixels.
Parameter names and shapes are those of NVIDIA's published networks.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan2.networks.ops import SQRT2, bias_act, blur, full_precision
from stylegan2.protocol import NoiseMode

MAX_LAYERS = 64  # largest number of mapping layers in a weight file; published networks have 2 to 8


class Linear(nn.Module):
    """y = x W^T (lr / sqrt(I)) + b lr, optionally followed by the activation; W is stored as randn / lr."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        lr: float = 1.0,
        bias: float = 0.0,
        activation: Literal["lrelu"] | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.lr, self.gain, self.activation = lr, lr / math.sqrt(inputs), activation

    def forward(self, x: Tensor) -> Tensor:
        if self.activation == "lrelu":
            return bias_act(F.linear(x, self.weight * self.gain), self.bias * self.lr)
        return F.linear(x, self.weight * self.gain, self.bias * self.lr)


class Mapping(nn.Module):
    """f: Z -> W, fully connected layers (eight in config F) of learning rate 0.01 on a normalised z; w_avg (D,)."""

    w_avg: Tensor

    def __init__(self, z_dim: int = 512, w_dim: int = 512, num_layers: int = 8) -> None:
        super().__init__()
        if not 1 <= num_layers <= MAX_LAYERS:
            raise ValueError(f"a mapping network has 1 to {MAX_LAYERS} layers, got {num_layers}")
        self.z_dim, self.w_dim, self.num_layers = z_dim, w_dim, num_layers
        for i in range(num_layers):
            self.add_module(f"fc{i}", Linear(z_dim if i == 0 else w_dim, w_dim, lr=0.01, activation="lrelu"))
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z_NZ: Tensor) -> Tensor:
        with full_precision(z_NZ):
            x = z_NZ.to(self.w_avg.dtype)
            x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)
            for i in range(self.num_layers):
                x = self.get_submodule(f"fc{i}")(x)
            return x

    @torch.no_grad()
    def estimate_w_avg(self, n: int = 10_000, seed: int = 0) -> None:
        """w_avg <- mean of n mapped samples, for weight files without w_avg."""
        z = torch.randn(n, self.z_dim, generator=torch.Generator().manual_seed(seed))
        self.w_avg.copy_(self(z.to(self.w_avg.device)).mean(0))


class SynthesisLayer(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias, activation; `up` doubles the size.

    The per-sample weights w'_oik = s_i w_oik / sqrt(sum_ik (s_i w_oik)^2 + 1e-8) (StyleGAN2, eq. 1 and 3) are applied
    as one dense convolution for the whole batch, with the inputs scaled by s and the outputs divided by the root.
    The result is the same, but no separate convolution for each sample is needed.
    """

    noise_const: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        up: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up, self.clamp = up, clamp
        self.affine = Linear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(self, x_NIHW: Tensor, w_ND: Tensor, noise: NoiseMode) -> Tensor:
        with full_precision(x_NIHW):
            style_NI = self.affine(w_ND.to(self.weight.dtype))
            demod_NO = torch.rsqrt(F.linear(style_NI.square(), self.weight.square().sum((2, 3))) + 1e-8)
            # leaky_relu(sqrt 2 x) = sqrt 2 leaky_relu(x), so the gain is applied to scale, bias and noise
            scale_NO, bias_O = demod_NO * SQRT2, self.bias * SQRT2
        # For a single large image, scaling the kernel takes fewer operations than scaling input and output.
        if len(x_NIHW) == 1 and x_NIHW.numel() > self.weight.numel():
            x = self._convolve(
                x_NIHW, self.weight * style_NI[0, :, None, None] * scale_NO[0, :, None, None, None], bias_O
            )
        else:
            x = self._convolve(x_NIHW * _per_channel(style_NI, x_NIHW), self.weight)
            x = torch.addcmul(bias_O.to(x.dtype)[:, None, None], x, _per_channel(scale_NO, x))
        pattern = self._noise(x, noise)
        if pattern is not None:
            # In place, as no gradient needs the old values; in one dtype, as mixed sums are slow.
            x = x.add_((pattern * SQRT2).to(x.dtype))
        x = F.leaky_relu_(x, 0.2)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)

    def _noise(self, x: Tensor, noise: NoiseMode) -> Tensor | None:
        """strength * noise, broadcast over channels: (H, W) or (N, 1, H, W)."""
        if noise == "none":
            return None
        if noise == "const":
            return self.noise_const * self.noise_strength
        if noise == "random":
            return torch.randn(x.shape[0], 1, *x.shape[2:], device=x.device) * self.noise_strength
        raise ValueError(f"noise must be 'const', 'random' or 'none', got {noise!r}")

    def _convolve(self, x: Tensor, weight_OIKK: Tensor, bias_O: Tensor | None = None) -> Tensor:
        if self.up:
            x = F.conv_transpose2d(x, weight_OIKK.transpose(0, 1), stride=2)
            return blur(x, padding=1, gain=4, bias_C=bias_O)
        return F.conv2d(x, weight_OIKK, bias_O, padding=1)


class ToRGB(nn.Module):
    """Modulated 1 x 1 convolution to RGB, without demodulation and never in half precision."""

    def __init__(self, inputs: int, w_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = Linear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.gain = 1 / math.sqrt(inputs)

    def forward(self, x_NIHW: Tensor, w_ND: Tensor) -> Tensor:
        with full_precision(x_NIHW):
            x = x_NIHW.to(self.weight.dtype)
            style_NI = self.affine(w_ND.to(x.dtype)) * self.gain
            kernel_NI3 = (self.weight[:, :, 0, 0] * style_NI[:, None]).transpose(1, 2)
            rgb_NP3 = torch.baddbmm(self.bias, x.permute(0, 2, 3, 1).flatten(1, 2), kernel_NI3)
            x = rgb_NP3.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class Conv(nn.Module):
    """A convolution of the discriminator; `down` filters and halves the size, `bias` adds bias and activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        down: bool = False,
        bias: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.down, self.kernel, self.clamp = down, kernel, clamp
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain = 1 / math.sqrt(inputs * kernel**2)

    def forward(self, x_NIHW: Tensor) -> Tensor:
        weight = self.weight * self.gain
        if not self.down:
            x = F.conv2d(x_NIHW, weight, padding=self.kernel // 2)
        elif self.kernel == 1:
            x = F.conv2d(blur(x_NIHW, padding=1, stride=2), weight)
        else:
            x = F.conv2d(blur(x_NIHW, padding=2), weight, stride=2)
        return x if self.bias is None else bias_act(x, self.bias, self.clamp)


def _per_channel(scale_NC: Tensor, like: Tensor) -> Tensor:
    """(N, C) -> (N, C, 1, 1) in the dtype of `like`."""
    return scale_NC.to(like.dtype)[:, :, None, None]
