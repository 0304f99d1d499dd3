"""The layers of MobileStyleGAN as functions: inverse Haar transform, depthwise and modulated 1x1 convolution.

Shapes: N batch, C channels, I and O input and output channels, H = W pixels of a side, P pixels of an image. Features are
NHWC. Each function computes in the type of its features; styles and weights may stay in float32. All can be
differentiated twice.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

SLOPE = 0.2  # of the leaky ReLU


def inverse_haar(x_NHWC: Tensor) -> Tensor:
    """Orthonormal inverse Haar transform: (N, H, W, 4C) -> (N, 2H, 2W, C).

    Channels are C averages, then for each of the C channels its vertical, horizontal and diagonal detail.
    """
    return _butterfly(x_NHWC * 0.5)


def _butterfly(x_NHWC: Tensor) -> Tensor:
    """Twice the inverse Haar transform."""
    return _Butterfly.apply(x_NHWC)  # type: ignore[return-value]


class _Butterfly(torch.autograd.Function):
    """`_butterfly`, with sums written to their places. Its gradient is the transposed matrix, `_ButterflyTransposed`."""

    @staticmethod
    def forward(ctx: Any, x_NHWC: Tensor) -> Tensor:
        n, h, w, channels = x_NHWC.shape
        low, detail = x_NHWC.split([channels // 4, channels - channels // 4], dim=3)
        vertical, horizontal, diagonal = detail.unflatten(3, (-1, 3)).unbind(4)
        y = x_NHWC.new_empty(n, h, 2, w, 2, channels // 4)
        rows = (low + vertical, horizontal + diagonal), (low - vertical, horizontal - diagonal)
        for i, (mean, difference) in enumerate(rows):
            torch.add(mean, difference, out=y[:, :, i, :, 0])
            torch.sub(mean, difference, out=y[:, :, i, :, 1])
        return y.view(n, 2 * h, 2 * w, channels // 4)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _ButterflyTransposed.apply(*grads)  # type: ignore[return-value]


class _ButterflyTransposed(torch.autograd.Function):
    """(N, 2H, 2W, C) -> (N, H, W, 4C): the Haar transform, times two."""

    @staticmethod
    def forward(ctx: Any, y_NHWC: Tensor) -> Tensor:
        n, h, w, channels = y_NHWC.shape
        rows = y_NHWC.reshape(n, h // 2, 2, w // 2, 2, channels).unbind(2)
        (top, left), (bottom, right) = (
            (row[:, :, :, 0] + row[:, :, :, 1], row[:, :, :, 0] - row[:, :, :, 1]) for row in rows
        )
        x = y_NHWC.new_empty(n, h // 2, w // 2, 4 * channels)
        detail = x[..., channels:].unflatten(3, (-1, 3))
        torch.add(top, bottom, out=x[..., :channels])
        torch.sub(top, bottom, out=detail[..., 0])
        torch.add(left, right, out=detail[..., 1])
        torch.sub(left, right, out=detail[..., 2])
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Butterfly.apply(*grads)  # type: ignore[return-value]


@cache
def haar_matrix(channels: int, device: torch.device) -> Tensor:
    """The inverse Haar transform of 4C = `channels` channels of one pixel, (2 x 2 C, 4C)."""
    with torch.inference_mode(False), torch.no_grad():
        return inverse_haar(torch.eye(channels, device=device)[:, None, None]).flatten(1).T.contiguous()


def upsample(x_NHWC: Tensor, style_NI: Tensor) -> Tensor:
    """The inverse Haar transform of modulated channels.

    In half precision it is a 1x1 convolution: where the hardware has such matrix products, they take less time than the
    additions.
    """
    if x_NHWC.dtype == style_NI.dtype:
        return _butterfly(x_NHWC * (style_NI * 0.5)[:, None, None])
    n, h, w, channels = x_NHWC.shape
    y = pointwise(x_NHWC, haar_matrix(channels, x_NHWC.device), style_NI)
    return y.view(n, h, w, 2, 2, channels // 4).transpose(2, 3).reshape(n, 2 * h, 2 * w, channels // 4)


def depthwise(x_NHWC: Tensor, weight_C133: Tensor) -> Tensor:
    """A 3x3 depthwise convolution that keeps the size."""
    return _Depthwise.apply(x_NHWC, weight_C133.to(x_NHWC.dtype))  # type: ignore[return-value]


class _Depthwise(torch.autograd.Function):
    """`depthwise`. The gradient of x is the convolution with the reversed kernel, which is faster than PyTorch's own."""

    @staticmethod
    def forward(ctx: Any, x_NHWC: Tensor, weight_C133: Tensor) -> Tensor:
        ctx.save_for_backward(x_NHWC, weight_C133)
        return nhwc(F.conv2d(nchw(x_NHWC), weight_C133, padding=1, groups=len(weight_C133)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (x_NHWC, weight), (grad_NHWC,) = ctx.saved_tensors, grads
        x = depthwise(grad_NHWC, weight.flip(2, 3)) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return x, None
        images = nchw(x_NHWC), nchw(grad_NHWC)
        return x, conv2d_weight(images[0], weight.shape, images[1], padding=1, groups=len(weight))


def pointwise(
    x_NHWC: Tensor,
    weight_OI: Tensor,
    style_NI: Tensor,
    bias_O: Tensor | None = None,
    noise_NHW: Tensor | None = None,
) -> Tensor:
    """A 1x1 convolution of modulated channels: y_npo = sum_i x_npi s_ni w_oi, (N, H, W, O), in the type of x.

    bias_O and noise_NHW: both or neither; with them the result is leaky_relu(y_npo + b_o + noise_np).
    """
    return _Pointwise.apply(x_NHWC, weight_OI, style_NI, bias_O, noise_NHW)  # type: ignore[return-value]


class _Pointwise(torch.autograd.Function):
    """`pointwise`. With g the gradient before the activation, the gradient of x is g w s, and with the outer product
    G_noi = sum_p g_npo x_npi those of s and w are sum_o G_noi w_oi and sum_n G_noi s_ni.

    PyTorch would compute them through the product of style and kernel, which costs one more convolution.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_NHWI: Tensor,
        weight_OI: Tensor,
        style_NI: Tensor,
        bias_O: Tensor | None,
        noise_NHW: Tensor | None,
    ) -> Tensor:
        dtype = x_NHWI.dtype
        kernel_NIO = (weight_OI.T * style_NI[:, :, None]).to(dtype)
        y_NHWO = x_NHWI.new_empty(*x_NHWI.shape[:3], len(weight_OI))
        x_NPI, y_NPO = x_NHWI.flatten(1, 2), y_NHWO.flatten(1, 2)
        if bias_O is None or noise_NHW is None:
            torch.bmm(x_NPI, kernel_NIO, out=y_NPO)
        else:
            # The product is added to bias and noise, because one addition for each of them would take as long as it.
            torch.add(noise_NHW[..., None].to(dtype), bias_O.to(dtype), out=y_NHWO)
            F.leaky_relu_(y_NPO.baddbmm_(x_NPI, kernel_NIO), SLOPE)
        ctx.save_for_backward(x_NHWI, weight_OI, style_NI, None if bias_O is None else y_NHWO)
        return y_NHWO

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x_NHWI, weight_OI, style_NI, y_NHWO), (grad_NHWO,) = ctx.saved_tensors, grads
        if y_NHWO is not None:  # the sign of y is that of the value before the activation
            grad_NHWO = torch.ops.aten.leaky_relu_backward(grad_NHWO, y_NHWO, SLOPE, True)
        wanted, x_NPI, grad_NPO = ctx.needs_input_grad, x_NHWI.flatten(1, 2), grad_NHWO.flatten(1, 2)
        weight = None
        if wanted[1] or x_NPI.dtype != weight_OI.dtype:
            outer_NOI = torch.bmm(grad_NPO.transpose(1, 2), x_NPI).to(weight_OI.dtype)
            style = (outer_NOI * weight_OI).sum(1)
            weight = (outer_NOI * style_NI[:, None]).sum(0) if wanted[1] else None
            x = grad_NPO @ (weight_OI * style_NI[:, None]).to(x_NPI.dtype)
        else:  # in float32 the outer product takes longer than these products over pixels
            scaled_NPI = grad_NPO @ weight_OI
            style = (x_NPI * scaled_NPI).sum(1)
            x = scaled_NPI * style_NI[:, None]
        bias = grad_NPO.sum((0, 1)) if wanted[3] else None
        return x.view(x_NHWI.shape), weight, style, bias, None


def nchw(x_NHWC: Tensor) -> Tensor:
    return x_NHWC.permute(0, 3, 1, 2)


def nhwc(x_NCHW: Tensor) -> Tensor:
    return x_NCHW.permute(0, 2, 3, 1)
