"""The heads of the public encoders: one small convolutional network per W+ row, those of one feature map at once.

Shapes: N images, L rows, D latent width, C head width, H x W pixels. Module names are those of the public files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan2.weights import WeightsError

SMALL = 16  # px; below, a batched product is faster than a grouped convolution
PATCH = 9  # of a 3x3 convolution
MAX_ROWS = 18  # of a generator of 1024 px


class LevelHeads(nn.Module):
    """The heads of all rows that read one level, computed together.

    Each head: 3x3 convolutions of stride 2 with LeakyReLU 0.01 down to one pixel, then an equalised linear layer
    y = x W^T / sqrt(C) + b. The weights are stacked over rows: rows share the input of the first layer, so it is one
    convolution; the later ones are one batched product of patches and weights, which on small maps (a head's last
    layers read 2 to 16 pixels) is faster than a convolution per row, and than a grouped one.
    """

    def __init__(self, rows: int, size: int, width: int, w_dim: int):
        super().__init__()
        self.rows, self.width = rows, width
        self.layers = int(math.log2(size))
        bound = 1 / math.sqrt(PATCH * width)  # PyTorch's default of a convolution
        for k in range(self.layers):
            self.register_parameter(f"weight{k}", _uniform(bound, rows, width, width, 3, 3))
            self.register_parameter(f"bias{k}", _uniform(bound, rows, width))
        self.linear = nn.Parameter(torch.randn(rows, w_dim, width))
        self.linear_bias = nn.Parameter(torch.zeros(rows, w_dim))
        self.gain = 1 / math.sqrt(width)

    def forward(self, x_NCHW: Tensor, rows: int | None = None) -> Tensor:
        """Features -> [N, rows, D]; only the first `rows` heads are computed."""
        r, n = self.rows if rows is None else rows, len(x_NCHW)
        x = x_NCHW
        for k in range(self.layers):
            weight, bias = self._layer(k, r)
            if x.shape[-1] > SMALL:
                groups = 1 if k == 0 else r  # the rows share what the first layer reads
                x = F.conv2d(x, weight.flatten(0, 1), bias.flatten(), stride=2, padding=1, groups=groups)
                x = F.leaky_relu(x, 0.01)
            else:
                x = _small_layer(x if k else x.repeat(1, r, 1, 1), weight, bias)
        rows_RNC = x.view(n, r, -1).transpose(0, 1)
        made = torch.baddbmm(self.linear_bias[:r, None], rows_RNC, self.linear[:r].mT, alpha=self.gain)
        return made.transpose(0, 1)

    def _layer(self, k: int, rows: int) -> tuple[Tensor, Tensor]:
        return getattr(self, f"weight{k}")[:rows], getattr(self, f"bias{k}")[:rows]

    def _load_from_state_dict(self, *_: Any) -> None:
        """RowHeads, which knows the rows' numbers, fills the tensors."""

    def public_names(self) -> dict[str, Tensor]:
        """Public name of a head's tensor -> our tensor stacked over rows."""
        names: dict[str, Tensor] = {}
        for k in range(self.layers):
            names[f"convs.{2 * k}.weight"], names[f"convs.{2 * k}.bias"] = self._layer(k, self.rows)
        return names | {"linear.weight": self.linear, "linear.bias": self.linear_bias}


class RowHeads(nn.Module):
    """All heads; its state dict has the public names `<row>.convs.<2k>.weight`, one tensor per row (views of ours)."""

    def __init__(self, levels: Sequence[tuple[int, int]], width: int, w_dim: int):
        """levels: how many rows read a feature map, and its size in px; the first rows first."""
        super().__init__()
        self.levels = nn.ModuleList(LevelHeads(rows, size, width, w_dim) for rows, size in levels)

    def forward(self, pyramid: Sequence[Tensor], active: int) -> Tensor:
        """The levels' features, as many as are needed -> h [N, active, D] of the first `active` rows."""
        made = []
        for level, features in zip(self.levels, pyramid, strict=False):
            assert isinstance(level, LevelHeads)
            made.append(level(features, min(active, level.rows)))
            active -= level.rows
        return torch.cat(made, dim=1)

    def by_row(self) -> dict[str, Tensor]:
        """Public name -> the row's slice of our stacked tensor, which shares its memory."""
        names, first = {}, 0
        for level in self.levels:
            assert isinstance(level, LevelHeads)
            for name, stacked in level.public_names().items():
                names |= {f"{first + i}.{name}": stacked.detach()[i] for i in range(level.rows)}
            first += level.rows
        return names

    # state_dict and load_state_dict ask these two of every module; see nn.Module.

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
        ours = {prefix + name: value for name, value in self.by_row().items()}
        missing_keys += [key for key in ours if key not in state_dict]
        unexpected_keys += [key for key in state_dict if key.startswith(prefix) and key not in ours]
        for key, value in ours.items():
            if key not in state_dict:
                continue
            if state_dict[key].shape != value.shape:
                error_msgs.append(f"{key} is {tuple(state_dict[key].shape)}, expected {tuple(value.shape)}")
                continue
            value.copy_(state_dict[key])


def check_kind_and_side(kind: str, side: int) -> None:
    """ValueError unless the public encoders have such a kind and backbone size, px."""
    if kind not in ("e4e", "psp"):
        raise ValueError(f'kind is "e4e" or "psp", got {kind!r}')
    if side not in (32, 64, 128, 256, 512, 1024):
        raise ValueError(f"side must be a power of two from 32 to 1024, got {side}")


def rows_around(w_avg: Tensor | None, rows: int, w_dim: int) -> Tensor:
    """The latent that corrections start from, [L, D]: w_avg ([D] or [L, D]) for each row, or zeros."""
    mean = torch.zeros(w_dim) if w_avg is None else w_avg.detach()
    return mean.expand(rows, -1).clone()


def count_rows(state: Mapping[str, Tensor], fewest: int, what: str) -> int:
    """How many rows the heads in a public file's tensors write; WeightsError unless they are numbered from 0."""
    rows = {int(match[1]) for key in state if (match := re.match(r"styles\.(\d{1,4})\.", key))}
    if not rows:
        raise WeightsError(
            f"These tensors are not {what}: there are no heads (styles.0 ...) among them; "
            "check which network the file holds."
        )
    if not fewest <= len(rows) <= MAX_ROWS or rows != set(range(len(rows))):
        raise WeightsError(
            f"These tensors are not {what}: their heads have the numbers {sorted(rows)[:20]}, expected "
            "0 to 17 for 1024 px, or 0 to 13 for 256 px; check which network the file holds."
        )
    return len(rows)


def mean_of_rows(latent_avg: Tensor, rows: int) -> Tensor:
    """A public file's mean latent, [512] or [L, 512] -> [L, 512]; WeightsError for any other shape."""
    if tuple(latent_avg.shape) not in ((512,), (rows, 512)):
        raise WeightsError(
            f"latent_avg is {tuple(latent_avg.shape)}, expected (512,) or ({rows}, 512): take the generator's "
            "mean latent."
        )
    return latent_avg.detach().float().expand(rows, -1)


def _small_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same convolution and activation on a small map: one batched product of patches and weights.

    x [N, R C, H, W], weight [R, C, C, 3, 3] -> [N, R C, H/2, W/2].
    """
    n, r, half = len(x), len(weight), x.shape[-1] // 2
    patches = F.unfold(x, 3, padding=1, stride=2).view(n, r, -1, half**2)
    patches = patches.permute(1, 0, 3, 2).reshape(r, n * half**2, -1)
    made = torch.baddbmm(bias[:, None], patches, weight.flatten(2).mT)
    return F.leaky_relu(made, 0.01).view(r, n, half**2, -1).permute(1, 0, 3, 2).reshape(n, -1, half, half)


def _uniform(bound: float, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))
