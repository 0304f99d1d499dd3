"""The StyleGAN2 discriminator: residual blocks, minibatch standard deviation, one score per image.

Shapes: N images, C channels, H = W = resolution.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylegan2.networks.generator import Channels, channel_table, sizes
from stylegan2.networks.layers import Conv, Linear
from stylegan2.networks.ops import full_precision
from stylegan2.weights import WeightsError, assemble


def minibatch_std(x_NCHW: Tensor, group: int = 4) -> Tensor:
    """Appends one channel: the standard deviation over groups of images, averaged over channels and pixels.

    group: largest group size; the group size used is the largest divisor of N up to it.
    """
    n, c, h, w = x_NCHW.shape
    group = max(g for g in range(1, group + 1) if n % g == 0)
    y = x_NCHW.reshape(group, n // group, c, h, w)
    std = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    return torch.cat([x_NCHW, std.repeat(group)[:, None, None, None].expand(n, 1, h, w)], 1)


class ResidualBlock(nn.Module):
    """x -> (conv(conv(x)) + skip(x)) / sqrt 2 at half the size; the first block also reads the RGB image."""

    def __init__(self, inputs: int, outputs: int, first: bool, clamp: float | None) -> None:
        super().__init__()
        if first:
            self.fromrgb = Conv(3, inputs, 1, clamp=clamp)
        self.first = first
        self.conv0 = Conv(inputs, inputs, 3, clamp=clamp)
        self.conv1 = Conv(inputs, outputs, 3, down=True, clamp=clamp)
        self.skip = Conv(inputs, outputs, 1, down=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = self.fromrgb(x)
        return (self.conv1(self.conv0(x)) + self.skip(x)) / math.sqrt(2)


class Epilogue(nn.Module):
    """4 px features -> score in full precision: minibatch std, 3 x 3 convolution, two fully connected layers."""

    def __init__(self, channels: int, group: int, clamp: float | None) -> None:
        super().__init__()
        self.group = group
        self.conv = Conv(channels + 1, channels, 3, clamp=clamp)
        self.fc = Linear(channels * 16, channels, activation="lrelu")
        self.out = Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            x = self.conv(minibatch_std(x.to(self.out.weight.dtype), self.group))
            return self.out(self.fc(x.flatten(1)))


class Discriminator(nn.Module):
    """image (N, 3, H, W) in [-1, 1] -> logits (N, 1), higher for real. Arguments as for StyleGAN2."""

    def __init__(
        self,
        resolution: int,
        channels: Channels | None = None,
        conv_clamp: float | None = None,
        group: int = 4,
    ) -> None:
        super().__init__()
        self.resolution, self.group, self.conv_clamp = resolution, group, conv_clamp
        self.channels = channel_table(resolution, channels)
        self.sizes = sizes(resolution)[:0:-1]  # resolution, ..., 8
        for size in self.sizes:
            block = ResidualBlock(
                self.channels[size], self.channels[size // 2], size == resolution, conv_clamp
            )
            self.add_module(f"b{size}", block)
        self.b4 = Epilogue(self.channels[4], group, conv_clamp)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's keyword arguments, in types that JSON can hold."""
        channels = {str(size): count for size, count in self.channels.items()}
        return {
            "resolution": self.resolution,
            "channels": channels,
            "conv_clamp": self.conv_clamp,
            "group": self.group,
        }

    def forward(self, x_N3HW: Tensor) -> Tensor:
        if tuple(x_N3HW.shape[1:]) != (3, self.resolution, self.resolution):
            raise ValueError(
                f"expected images (N, 3, {self.resolution}, {self.resolution}), got {tuple(x_N3HW.shape)}"
            )
        x = x_N3HW
        for size in self.sizes:
            x = self.get_submodule(f"b{size}")(x)
        return self.b4(x)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], conv_clamp: float | None = None, group: int = 4
    ) -> "Discriminator":
        """Rebuilds the network from tensors, whose shapes give all sizes but neither `conv_clamp` nor `group`.

        FIR filters are ignored (they are fixed). Raises WeightsError if the tensors form no discriminator.
        """
        state = {key: value for key, value in state.items() if not key.endswith("resample_filter")}
        pattern = r"b(\d+)\.conv0\.weight"
        blocks = {int(match[1]): key for key in state if (match := re.fullmatch(pattern, key))}
        if not blocks or "b4.conv.weight" not in state:
            raise WeightsError(
                "These tensors are not a StyleGAN2 discriminator (no b4.conv or b8.conv0 with a skip)."
            )
        channels = {size: state[key].shape[0] for size, key in blocks.items()}
        channels[4] = state["b4.conv.weight"].shape[0]
        return assemble(
            lambda: cls(max(blocks), channels, conv_clamp, group), state, "StyleGAN2 discriminator"
        )
