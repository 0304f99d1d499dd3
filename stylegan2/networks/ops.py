"""The resampling filter and the activation of StyleGAN2, in plain PyTorch: differentiable twice, on any device.

Shapes: N images, C channels, H x W pixels. The filter is f = [1, 3, 3, 1] / 8 along each axis.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

SQRT2 = math.sqrt(2)


def fir(x: Tensor) -> Tensor:
    """The 4 x 4 filter [1, 3, 3, 1] outer [1, 3, 3, 1], summing to 1, one per channel of x: (C, 1, 4, 4)."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device, dtype=x.dtype) / 8
    return (taps[:, None] * taps[None, :]).expand(x.shape[1], 1, 4, 4)


def blur(
    x_NCHW: Tensor, padding: int, gain: float = 1.0, stride: int = 1, bias_C: Tensor | None = None
) -> Tensor:
    """Zero-pads, filters, adds the bias, keeps every stride-th pixel: H -> (H + 2 padding - 4) // stride + 1.

    A 4 x 4 depthwise convolution is twice as fast on the CPU as two 1-d ones or as sums of slices.
    """
    if stride == 1:
        return _Blur.apply(x_NCHW, bias_C, padding, gain)  # type: ignore[return-value]
    return F.conv2d(x_NCHW, fir(x_NCHW) * gain, bias_C, stride, padding, groups=x_NCHW.shape[1])


class _Blur(torch.autograd.Function):
    """The gradient of filtering with a symmetric filter is the same filtering.

    PyTorch's own gradient of a depthwise convolution takes 25 times as long on the CPU.
    """

    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, bias_C: Tensor | None, padding: int, gain: float) -> Tensor:
        ctx.padding, ctx.gain = padding, gain
        return F.conv2d(x_NCHW, fir(x_NCHW) * gain, bias_C, padding=padding, groups=x_NCHW.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (grad_NCHW,) = grads
        x = blur(grad_NCHW, 3 - ctx.padding, ctx.gain) if ctx.needs_input_grad[0] else None
        return x, grad_NCHW.sum((0, 2, 3)) if ctx.needs_input_grad[1] else None, None, None


def upsample2(x_NCHW: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W): zeros between the pixels, then 4 f (the gain of 4 keeps the mean).

    Equals bilinear interpolation of the image padded by one zero pixel, with the padding cropped off again.
    """
    return F.conv_transpose2d(x_NCHW, fir(x_NCHW) * 4, stride=2, padding=1, groups=x_NCHW.shape[1])


def bias_act(x: Tensor, bias: Tensor, clamp: float | None = None) -> Tensor:
    """sqrt(2) leaky_relu(x + b, 0.2), clamped to [-clamp, clamp] if given; bias (C,) over dimension 1."""
    x = x + bias.to(x.dtype).view(1, -1, *[1] * (x.ndim - 2))
    x = F.leaky_relu(x, 0.2) * SQRT2
    return x if clamp is None else x.clamp(-clamp, clamp)


def half_precision(x: Tensor, half: torch.dtype | None) -> AbstractContextManager[object]:
    """A context in which convolutions and matrix products on x's device compute in `half`; None changes nothing."""
    return nullcontext() if half is None else torch.autocast("cpu" if x.is_meta else x.device.type, half)


def full_precision(x: Tensor) -> torch.autocast:
    """A context without autocast on x's device, for the small parts of a network that need precision."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


def run_block(block: nn.Module, recompute: bool, *inputs: Any) -> Any:
    """block(*inputs); with `recompute` its activations are computed again for the gradient instead of being stored."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
