"""The full-size encoders e4e (Tov et al. 2021) and pSp (Richardson et al. 2021): one convolutional head per W+ row.

Shapes: N images, L rows, D latent width, C head width, H x W pixels. Images are FFHQ-aligned, [-1, 1].

An IR-SE backbone looks at 256 px; its features of 16, 32 and 64 px form a pyramid, from which rows 0-2, 3-6 and
7 ... are read. e4e: w_0 = h_0, w_i = h_0 + h_i for rows i up to the stage, w_0 for those above it. pSp: w_i = h_i.
Both around the mean latent, which is inside. Module names are those of the public files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.backbone import BackboneConfig, fill_public, stages, stem, taps
from stylegan2.images import resize
from stylegan2.weights import WeightsError

COARSE_ROWS, MIDDLE_ROWS = 3, 7  # rows 0-2 read the coarse level, 3-6 the middle one, 7 ... the fine one
SMALL = 16  # px; below, a batched product is faster than a grouped convolution
PATCH = 9  # of a 3x3 convolution


@dataclass
class FullEncoderConfig:
    """kind: "e4e" or "psp", which differ in what the heads mean. num_rows: 14 for 256 px, 18 for 1024 px.

    stage: the last row that has a delta of its own (e4e while it is trained; None: all have). side: px that the
    backbone looks at. head_width: channels of the pyramid and of the heads; 512, as w_dim, in the public files.
    """

    kind: Literal["e4e", "psp"] = "e4e"
    num_rows: int = 18
    w_dim: int = 512
    head_width: int = 512
    side: int = 256
    stage: int | None = None
    widths: tuple[int, ...] = (64, 64, 128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 14, 3)

    def __post_init__(self) -> None:
        self.widths, self.depths = tuple(self.widths), tuple(self.depths)
        BackboneConfig(self.widths, self.depths)
        if self.kind not in ("e4e", "psp"):
            raise ValueError(f'kind is "e4e" or "psp", got {self.kind!r}')
        if self.num_rows <= MIDDLE_ROWS:
            raise ValueError(f"num_rows must be above {MIDDLE_ROWS} (a generator of 64 px has 10)")
        if self.side < 32 or self.side & (self.side - 1):
            raise ValueError(f"side must be a power of two from 32, got {self.side}")
        if self.stage is not None and (self.kind == "psp" or not 0 <= self.stage < self.num_rows):
            raise ValueError(f"stage names a row of an e4e encoder, 0 to {self.num_rows - 1}, or null")


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

    def __init__(self, config: FullEncoderConfig):
        super().__init__()
        rows = (COARSE_ROWS, MIDDLE_ROWS - COARSE_ROWS, config.num_rows - MIDDLE_ROWS)
        sizes = (config.side // 16, config.side // 8, config.side // 4)
        self.levels = nn.ModuleList(
            LevelHeads(n, size, config.head_width, config.w_dim) for n, size in zip(rows, sizes, strict=True)
        )

    def forward(self, pyramid: list[Tensor], active: int) -> Tensor:
        """Levels, coarse first, as many as are needed -> h [N, active, D] of the first `active` rows."""
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


class FullEncoder(nn.Module):
    """images [N, 3, H, W] in [-1, 1] -> W+ [N, L, D] around w_avg [L, D]."""

    kind = "full_encoder"

    def __init__(self, config: FullEncoderConfig, w_avg: Tensor | None = None):
        super().__init__()
        self.config, self.num_rows, self.side = config, config.num_rows, config.side
        self.stage = config.num_rows - 1 if config.stage is None else config.stage
        backbone = BackboneConfig(config.widths, config.depths)
        self.input_layer, self.body, self.taps = stem(backbone), stages(backbone), taps(backbone)
        self.styles = RowHeads(config)
        self.latlayer1 = nn.Conv2d(config.widths[3], config.head_width, 1)
        self.latlayer2 = nn.Conv2d(config.widths[2], config.head_width, 1)
        if config.widths[4] != config.head_width:
            raise ValueError(
                "the last of widths must equal head_width: the pyramid's top is the backbone's output"
            )
        mean = torch.zeros(config.w_dim) if w_avg is None else w_avg.detach()
        self.w_avg: Tensor
        self.register_buffer("w_avg", mean.expand(config.num_rows, -1).clone())

    def pyramid(self, images_N3HW: Tensor, levels: int = 3) -> list[Tensor]:
        """Features of side / 16, / 8 and / 4 px, each with the one above it added."""
        x, features = self.input_layer(resize(images_N3HW, self.side)), []
        for i, block in enumerate(self.body):
            x = block(x)
            if i in self.taps:
                features.append(x)
        fine, middle, coarse = features
        made = [coarse]
        for lateral, feature in zip(
            (self.latlayer1, self.latlayer2)[: levels - 1], (middle, fine), strict=False
        ):
            above = F.interpolate(made[-1], size=feature.shape[-2:], mode="bilinear", align_corners=True)
            made.append(lateral(feature) + above)
        return made

    def heads(self, images_N3HW: Tensor) -> Tensor:
        """What the heads of rows 0 ... stage say, [N, stage + 1, D]."""
        active = self.stage + 1
        levels = 1 + (active > COARSE_ROWS) + (active > MIDDLE_ROWS)
        pyramid = self.pyramid(images_N3HW, levels)
        return self.styles(pyramid, active)

    def split(self, images_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> (w_0 - w_avg [N, D], deltas w_i - w_0 [N, L, D]); e4e only. Deltas above the stage are zero."""
        rows = self.heads(images_N3HW)
        deltas = F.pad(rows[:, 1:], (0, 0, 1, self.num_rows - 1 - self.stage))
        return rows[:, 0], deltas

    def forward(self, images_N3HW: Tensor) -> Tensor:
        if self.config.kind == "psp":
            return self.w_avg + self.heads(images_N3HW)
        base, deltas = self.split(images_N3HW)
        return self.w_avg + (base[:, None] + deltas)

    def file_config(self) -> dict[str, Any]:
        """What the weight file stores to rebuild the network, at the stage that it has reached."""
        last = self.stage == self.num_rows - 1
        return asdict(replace(self.config, stage=None if last else self.stage))


def from_public(
    state: Mapping[str, Tensor], latent_avg: Tensor, kind: Literal["e4e", "psp"] = "e4e"
) -> FullEncoder:
    """The encoder in a public checkpoint (`encoder.` taken off its keys), frozen and in eval mode.

    latent_avg: [D] or [L, D]. kind: the keys of e4e and pSp files are the same; their `opts` tell them apart.
    Raises WeightsError, naming the first tensor that does not fit, for any other network.
    """
    rows = {int(match[1]) for key in state if (match := re.match(r"styles\.(\d+)\.", key))}
    if not rows:
        raise WeightsError(
            "These tensors are not an e4e or pSp encoder: there are no heads (styles.0 ...) among them; "
            "check which network the file holds."
        )
    if len(rows) <= MIDDLE_ROWS or rows != set(range(len(rows))) or len(rows) > 18:
        raise WeightsError(
            f"These tensors are not an e4e or pSp encoder: their heads have the numbers {sorted(rows)[:20]}, expected "
            "0 to 17 for 1024 px, or 0 to 13 for 256 px; check which network the file holds."
        )
    if tuple(latent_avg.shape) not in ((512,), (len(rows), 512)):
        raise WeightsError(
            f"latent_avg is {tuple(latent_avg.shape)}, expected (512,) or ({len(rows)}, 512): take the generator's "
            "mean latent."
        )
    with torch.device("meta"):
        encoder = FullEncoder(FullEncoderConfig(kind=kind, num_rows=len(rows)))
    encoder.to_empty(device="cpu")
    mean = latent_avg.detach().float().expand(len(rows), -1)
    fill_public(encoder, {**state, "w_avg": mean}, f"an e4e or pSp encoder of {len(rows)} rows")
    return encoder.eval().requires_grad_(False)


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
