"""The full-size encoders e4e (Tov et al. 2021) and pSp (Richardson et al. 2021): one convolutional head per W+ row.

Shapes: N images, L rows, D latent width, C head width, H x W pixels. Images are FFHQ-aligned, [-1, 1].

An IR-SE backbone looks at 256 px; its features of 16, 32 and 64 px form a pyramid, from which rows 0-2, 3-6 and
7 ... are read. e4e: w_0 = h_0, w_i = h_0 + h_i for rows i up to the stage, w_0 for those above it. pSp: w_i = h_i.
Both around the mean latent, which is inside. Module names are those of the public files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.networks.ir_se import BackboneConfig, fill_public, stages, stem, taps
from encoders.networks.style_heads import (
    MAX_ROWS,
    RowHeads,
    check_kind_and_side,
    count_rows,
    mean_of_rows,
    rows_around,
)
from stylegan2.images import resize

COARSE_ROWS, MIDDLE_ROWS = 3, 7  # rows 0-2 read the coarse level, 3-6 the middle one, 7 ... the fine one


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
        check_kind_and_side(self.kind, self.side)
        if not MIDDLE_ROWS < self.num_rows <= MAX_ROWS:
            raise ValueError(
                f"num_rows is from {MIDDLE_ROWS + 1} to {MAX_ROWS} (a generator of 64 px has 10), got {self.num_rows}"
            )
        if self.stage is not None and (self.kind == "psp" or not 0 <= self.stage < self.num_rows):
            raise ValueError(f"stage names a row of an e4e encoder, 0 to {self.num_rows - 1}, or null")


class FullEncoder(nn.Module):
    """images [N, 3, H, W] in [-1, 1] -> W+ [N, L, D] around w_avg [L, D]."""

    kind = "full_encoder"

    def __init__(self, config: FullEncoderConfig, w_avg: Tensor | None = None):
        super().__init__()
        self.config, self.num_rows, self.side = config, config.num_rows, config.side
        self.stage = config.num_rows - 1 if config.stage is None else config.stage
        backbone = BackboneConfig(config.widths, config.depths)
        self.input_layer, self.body, self.taps = stem(backbone), stages(backbone), taps(backbone)
        rows = (COARSE_ROWS, MIDDLE_ROWS - COARSE_ROWS, config.num_rows - MIDDLE_ROWS)
        sizes = (config.side // 16, config.side // 8, config.side // 4)
        self.styles = RowHeads(list(zip(rows, sizes, strict=True)), config.head_width, config.w_dim)
        self.latlayer1 = nn.Conv2d(config.widths[3], config.head_width, 1)
        self.latlayer2 = nn.Conv2d(config.widths[2], config.head_width, 1)
        if config.widths[4] != config.head_width:
            raise ValueError(
                "the last of widths must equal head_width: the pyramid's top is the backbone's output"
            )
        self.w_avg: Tensor
        self.register_buffer("w_avg", rows_around(w_avg, config.num_rows, config.w_dim))

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
    rows = count_rows(state, MIDDLE_ROWS + 1, "an e4e or pSp encoder")
    mean = mean_of_rows(latent_avg, rows)
    with torch.device("meta"):
        encoder = FullEncoder(FullEncoderConfig(kind=kind, num_rows=rows))
    encoder.to_empty(device="cpu")
    fill_public(encoder, {**state, "w_avg": mean}, f"an e4e or pSp encoder of {rows} rows")
    return encoder.eval().requires_grad_(False)
