"""The heads of the full e4e and pSp: one small convolutional network per W+ row, computed together for each feature map.

Shapes: N images, D latent width, C head width, R rows of one level. Module names are those of the public files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL = 16  # px; up to this size a batched product is faster than a grouped convolution


class LevelHeads(nn.Module):
    """The heads of all rows that read one feature map of `size` px.

    Each head: 3x3 convolutions of stride 2 with LeakyReLU 0.01 down to one pixel, then an equalised linear layer
    y = x W^T / sqrt(C) + b. The weights are stacked over rows. All rows read the same input, so the first layer is one
    convolution; the later ones are one batched product of patches and weights, which on small maps (a head's last
    layers read 2 to 16 px) is faster than one convolution per row and than a grouped convolution.
    """

    def __init__(self, rows: int, size: int, width: int, w_dim: int):
        super().__init__()
        self.rows, self.layers = rows, int(math.log2(size))
        bound = 1 / math.sqrt(9 * width)  # PyTorch's default initialisation of a 3x3 convolution
        for k in range(self.layers):
            weight, bias = torch.empty(rows, width, width, 3, 3), torch.empty(rows, width)
            self.register_parameter(f"weight{k}", nn.Parameter(weight.uniform_(-bound, bound)))
            self.register_parameter(f"bias{k}", nn.Parameter(bias.uniform_(-bound, bound)))
        self.linear = nn.Parameter(torch.randn(rows, w_dim, width))
        self.linear_bias = nn.Parameter(torch.zeros(rows, w_dim))
        self.gain = 1 / math.sqrt(width)

    def forward(self, x_NCHW: Tensor, rows: int) -> Tensor:
        """Features -> [N, rows, D]; only the first `rows` heads are computed."""
        x, n = x_NCHW, len(x_NCHW)
        for k in range(self.layers):
            weight, bias = self.layer(k, rows)
            if x.shape[-1] > SMALL:
                groups = 1 if k == 0 else rows  # the first layer's input is shared by all rows
                x = F.conv2d(x, weight.flatten(0, 1), bias.flatten(), stride=2, padding=1, groups=groups)
                x = F.leaky_relu(x, 0.01)
            else:
                x = _small_layer(x if k else x.repeat(1, rows, 1, 1), weight, bias)
        rows_RNC = x.view(n, rows, -1).transpose(0, 1)
        w_RND = torch.baddbmm(self.linear_bias[:rows, None], rows_RNC, self.linear[:rows].mT, alpha=self.gain)
        return w_RND.transpose(0, 1)

    def layer(self, k: int, rows: int) -> tuple[Tensor, Tensor]:
        """Weight [rows, C, C, 3, 3] and bias [rows, C] of the k-th convolution."""
        return getattr(self, f"weight{k}")[:rows], getattr(self, f"bias{k}")[:rows]

    def public_names(self) -> dict[str, Tensor]:
        """Public name of a head's tensor -> our tensor stacked over rows."""
        names: dict[str, Tensor] = {}
        for k in range(self.layers):
            names[f"convs.{2 * k}.weight"], names[f"convs.{2 * k}.bias"] = self.layer(k, self.rows)
        return names | {"linear.weight": self.linear, "linear.bias": self.linear_bias}

    def _load_from_state_dict(self, *_: Any) -> None:
        """Loads nothing, because RowHeads, which maps rows to levels, fills these tensors."""


class RowHeads(nn.Module):
    """All heads. Its state dict has the public names `<row>.convs.<2k>.weight`, one tensor per row (views of ours)."""

    def __init__(self, levels: Sequence[tuple[int, int]], width: int, w_dim: int):
        """levels: (number of rows, size in px) of each feature map, the first rows first."""
        super().__init__()
        self.levels = nn.ModuleList(LevelHeads(rows, size, width, w_dim) for rows, size in levels)

    def forward(self, pyramid: Sequence[Tensor], active: int) -> Tensor:
        """The feature maps, as many as are needed -> h [N, active, D] of the first `active` rows."""
        outputs = []
        for level, features in zip(self.levels, pyramid, strict=False):
            assert isinstance(level, LevelHeads)
            outputs.append(level(features, min(active, level.rows)))
            active -= level.rows
        return torch.cat(outputs, dim=1)

    def by_row(self) -> dict[str, Tensor]:
        """Public name -> the row's slice of our stacked tensor, which shares its memory."""
        names, first = {}, 0
        for level in self.levels:
            assert isinstance(level, LevelHeads)
            for name, stacked in level.public_names().items():
                names |= {f"{first + i}.{name}": stacked.detach()[i] for i in range(level.rows)}
            first += level.rows
        return names

    # nn.Module calls the next two for its state_dict and load_state_dict.

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> Any:
        destination = {} if destination is None else destination
        destination.update({prefix + name: value for name, value in self.by_row().items()})
        return destination

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        expected = {prefix + name: value for name, value in self.by_row().items()}
        missing_keys += [key for key in expected if key not in state_dict]
        unexpected_keys += [key for key in state_dict if key.startswith(prefix) and key not in expected]
        for key, own in expected.items():
            loaded = state_dict.get(key, own)
            if loaded.shape == own.shape:
                own.copy_(loaded)
            else:
                error_msgs.append(f"{key} is {tuple(loaded.shape)}, expected {tuple(own.shape)}")


def _small_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolution and activation of all rows on a small map, as one batched product of patches and weights.

    x [N, R C, H, W], weight [R, C, C, 3, 3] -> [N, R C, H/2, W/2].
    """
    n, r, half = len(x), len(weight), x.shape[-1] // 2
    patches = F.unfold(x, 3, padding=1, stride=2).view(n, r, -1, half**2)
    patches = patches.permute(1, 0, 3, 2).reshape(r, n * half**2, -1)
    y = F.leaky_relu(torch.baddbmm(bias[:, None], patches, weight.flatten(2).mT), 0.01)
    return y.view(r, n, half**2, -1).permute(1, 0, 3, 2).reshape(n, -1, half, half)
