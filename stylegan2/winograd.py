"""3 x 3 convolution by Winograd's F(4 x 4, 3 x 3) (Lavin and Gray 2015): a quarter of the multiplications.

    y = A^T [ sum_i (G w_oi G^T) * (B^T x_i B) ] A      for each tile of 4 x 4 outputs, * entry by entry

so that the sum over channels is 36 matrix products, one for each entry of the transformed 6 x 6 tiles. On a CPU without
AVX-512, in float32, for many channels and pixels; the transforms cost more than they save elsewhere (`pays`).

Shapes: N images, I input and O output channels, H x W pixels, P tiles of a band.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

# Interpolation at 0, 1, -1, 2, -2 and infinity.
B_T = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
G = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
).div(24)
A_T = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)
BAND = 256  # tiles that are transformed at once: what lies between the transforms stays in the cache


def pays(x_NIHW: Tensor, weight_OIKK: Tensor) -> bool:
    """Where it was measured to be at least 1.5 times as fast as F.conv2d. With AVX-512 (Zen 5) F.conv2d does 2.4 times
    the operations a second that matrix products do, and the two are equally fast."""
    return (
        x_NIHW.device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability() != "AVX512"
        and x_NIHW.dtype == weight_OIKK.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and min(weight_OIKK.shape[:2]) >= 256
        and min(x_NIHW.shape[2:]) >= 64
    )


def conv3x3(x_NIHW: Tensor, weight_OIKK: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """F.conv2d(x, weight, bias, padding=1); differentiable any number of times."""
    return _Conv3x3.apply(x_NIHW, weight_OIKK, bias_O)  # type: ignore[return-value]


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NIHW: Tensor, weight_OIKK: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_NIHW, weight_OIKK)
        return _forward(x_NIHW, weight_OIKK, bias_O)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradient of x is the same convolution with the kernel turned around."""
        (x_NIHW, weight_OIKK), (grad_NOHW,) = ctx.saved_tensors, grads
        wanted = ctx.needs_input_grad
        turned = weight_OIKK.flip(2, 3).transpose(0, 1)
        return (
            conv3x3(grad_NOHW, turned) if wanted[0] else None,
            conv2d_weight(x_NIHW, weight_OIKK.shape, grad_NOHW, padding=1) if wanted[1] else None,
            grad_NOHW.sum((0, 2, 3)) if wanted[2] else None,
        )


def _forward(x_NIHW: Tensor, weight_OIKK: Tensor, bias_O: Tensor | None) -> Tensor:
    """Channels last inside and in the result: what is gathered and scattered lies together."""
    (n, i, h, w), o = x_NIHW.shape, len(weight_OIKK)
    b_t, g, a_t = (torch.kron(m, m).to(x_NIHW) for m in (B_T, G, A_T))  # both axes of a tile at once
    u_36IO = (g @ weight_OIKK.permute(2, 3, 1, 0).reshape(9, i * o)).view(36, i, o)
    high, wide = -(-h // 4), -(-w // 4)  # tiles
    padded = F.pad(x_NIHW.permute(0, 2, 3, 1), (0, 0, 1, 4 * wide + 1 - w, 1, 4 * high + 1 - h))
    y_NOHW = torch.empty(
        (n, o, 4 * high, 4 * wide),
        dtype=x_NIHW.dtype,
        device=x_NIHW.device,
        memory_format=torch.channels_last,
    )
    bias = 0 if bias_O is None else bias_O
    step = max(1, BAND // wide)
    results = y_NOHW.permute(0, 2, 3, 1).view(n, high, 4, wide, 4, o)
    for image, result in zip(padded, results, strict=True):
        for top in range(0, high, step):
            rows = min(step, high - top)
            tiles = image[4 * top : 4 * (top + rows) + 2].unfold(0, 6, 4).unfold(1, 6, 4)
            v_36PI = (b_t @ tiles.permute(3, 4, 0, 1, 2).reshape(36, -1)).view(36, -1, i)
            y = a_t @ torch.bmm(v_36PI, u_36IO).view(36, -1)
            y = y.view(4, 4, rows, wide, o).permute(2, 0, 3, 1, 4)
            torch.add(y, bias, out=result[top : top + rows])
    # autograd forbids a custom function's result that is a view to be changed in place
    whole = y_NOHW.shape[2:] == (h, w)
    return y_NOHW if whole else y_NOHW[..., :h, :w].contiguous(memory_format=torch.channels_last)
