"""ReStyle (Alaluf et al. 2021, arXiv 2104.02699): an encoder that looks at its own reconstruction and corrects it.

Shapes: N images, L rows, D latent width, H x W pixels. Images are FFHQ-aligned, [-1, 1].

    w_0 = w_avg,    w_{t+1} = w_t + E([x, G(w_t)])

E is an IR-SE backbone on six channels; the heads of all rows read its last feature map (16 px of 256). What the heads
say is a code's correction as in e4e (h_0, and h_0 + h_i for the rows above) or as in pSp (h_i). Module names are those
of the public files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.networks.ir_se import BackboneConfig, fill_public, stages, stem
from encoders.networks.style_heads import (
    MAX_ROWS,
    RowHeads,
    check_kind_and_side,
    count_rows,
    mean_of_rows,
    rows_around,
)
from stylegan2.images import resize


@dataclass
class ReStyleConfig:
    """kind: "e4e" or "psp", which differ in what the heads mean. num_rows: 14 for 256 px, 18 for 1024 px.

    side: px that the backbone looks at. widths, depths: of the backbone; the defaults are those of the public files.
    """

    kind: Literal["e4e", "psp"] = "e4e"
    num_rows: int = 18
    w_dim: int = 512
    side: int = 256
    widths: tuple[int, ...] = (64, 64, 128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 14, 3)

    def __post_init__(self) -> None:
        self.widths, self.depths = tuple(self.widths), tuple(self.depths)
        BackboneConfig(self.widths, self.depths)
        check_kind_and_side(self.kind, self.side)
        if not 1 <= self.num_rows <= MAX_ROWS:
            raise ValueError(f"num_rows is from 1 to {MAX_ROWS}, got {self.num_rows}")


class ReStyle(nn.Module):
    """Images and their reconstructions -> what the reconstructions' codes lack; `invert` goes round the loop."""

    kind = "restyle"

    def __init__(self, config: ReStyleConfig, w_avg: Tensor | None = None):
        super().__init__()
        self.config, self.num_rows, self.side = config, config.num_rows, config.side
        backbone = BackboneConfig(config.widths, config.depths)
        self.input_layer, self.body = stem(backbone, inputs=6), stages(backbone)
        self.styles = RowHeads([(config.num_rows, config.side // 16)], config.widths[-1], config.w_dim)
        self.w_avg: Tensor
        self.register_buffer("w_avg", rows_around(w_avg, config.num_rows, config.w_dim))

    def forward(self, images_N3HW: Tensor, made_N3HW: Tensor) -> Tensor:
        """E([x, y]), [N, L, D]: what the codes of the reconstructions y lack."""
        both = torch.cat([resize(images_N3HW, self.side), resize(made_N3HW, self.side)], dim=1)
        rows = self.styles([self.body(self.input_layer(both))], self.num_rows)
        if self.config.kind == "psp":
            return rows
        return rows[:, :1] + F.pad(rows[:, 1:], (0, 0, 1, 0))

    def invert(self, images_N3HW: Tensor, synthesis: Callable[[Tensor], Tensor], iterations: int) -> Tensor:
        """Images -> W+ [N, L, D] after `iterations` corrections, from the mean latent and its image.

        synthesis: W+ [N, L, D] -> images; of the generator that the encoder was trained for.
        """
        w_NLD = self.w_avg.expand(len(images_N3HW), -1, -1)
        made = synthesis(self.w_avg[None]).expand(len(images_N3HW), -1, -1, -1)
        for left in reversed(range(iterations)):
            w_NLD = w_NLD + self(images_N3HW, made)
            if left:
                made = synthesis(w_NLD)
        return w_NLD

    def file_config(self) -> dict[str, Any]:
        """What the weight file stores to rebuild the network."""
        return asdict(self.config)


def restyle_from_public(
    state: Mapping[str, Tensor], latent_avg: Tensor, kind: Literal["e4e", "psp"]
) -> ReStyle:
    """The encoder in a public checkpoint (`encoder.` taken off its keys), frozen and in eval mode.

    latent_avg: [D] or [L, D]. kind: the keys of both kinds are the same; their `opts` tell them apart. Raises
    WeightsError, naming the first tensor that does not fit, for any other network.
    """
    rows = count_rows(state, 4, "a ReStyle encoder")
    mean = mean_of_rows(latent_avg, rows)
    with torch.device("meta"):
        encoder = ReStyle(ReStyleConfig(kind=kind, num_rows=rows))
    encoder.to_empty(device="cpu")
    fill_public(encoder, {**state, "w_avg": mean}, f"a ReStyle encoder of {rows} rows")
    return encoder.eval().requires_grad_(False)
