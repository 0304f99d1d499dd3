"""The full-size encoders e4e (Tov et al. 2021) and pSp (Richardson et al. 2021): one convolutional head per W+ row.

Shapes: N images, L rows, D latent width, C head width, H x W pixels. Images are FFHQ-aligned, [-1, 1].

An IR-SE backbone reads the image at 256 px; its features of 16, 32 and 64 px form a pyramid, from which the heads of
rows 0-2, 3-6 and 7 ... read. e4e: w_0 = h_0, w_i = h_0 + h_i for rows i up to the stage, w_0 for those above it.
pSp: w_i = h_i. Both are added to the mean latent, which the network holds. Module names are those of the public files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.networks.ir_se import BackboneConfig, fill_public, stages, stem
from encoders.networks.style_heads import RowHeads
from stylegan2.images import resize
from stylegan2.weights import WeightsError

COARSE_ROWS, MIDDLE_ROWS = 3, 7  # rows 0-2 read the coarse level, 3-6 the middle one, 7 ... the fine one
MAX_ROWS = 18  # of a generator of 1024 px


@dataclass
class FullEncoderConfig:
    """Sizes of a full encoder; the defaults are those of the public FFHQ files at 1024 px."""

    # "e4e": heads add deltas to row 0; "psp": every row has its own head.
    kind: Literal["e4e", "psp"] = "e4e"
    num_rows: int = 18  # rows of W+: 14 for 256 px, 18 for 1024 px
    w_dim: int = 512  # D
    head_width: int = 512  # channels of the pyramid and of the heads
    side: int = 256  # px at which the backbone reads the image
    # The last row that has a delta of its own while an e4e is trained progressively; None: all rows have one.
    stage: int | None = None
    # Widths and depths of the backbone (BackboneConfig); the last width equals head_width, because the backbone's
    # output is the coarsest level of the pyramid.
    widths: tuple[int, ...] = (64, 64, 128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 14, 3)

    def __post_init__(self) -> None:
        self.widths, self.depths = tuple(self.widths), tuple(self.depths)
        BackboneConfig(self.widths, self.depths)
        if self.widths[4] != self.head_width:
            raise ValueError("the last of encoder_full.widths must equal encoder_full.head_width")
        if self.side not in (32, 64, 128, 256, 512, 1024):
            raise ValueError(f"encoder_full.side must be a power of two from 32 to 1024, got {self.side}")
        if self.w_dim < 1:
            raise ValueError(f"encoder_full.w_dim must be at least 1, got {self.w_dim}")
        if not MIDDLE_ROWS < self.num_rows <= MAX_ROWS:
            raise ValueError(
                f"num_rows is from {MIDDLE_ROWS + 1} to {MAX_ROWS} (a generator of 64 px has 10), got {self.num_rows}"
            )
        if self.stage is not None and (self.kind == "psp" or not 0 <= self.stage < self.num_rows):
            raise ValueError(f"stage names a row of an e4e encoder, 0 to {self.num_rows - 1}, or null")


class FullEncoder(nn.Module):
    """images [N, 3, H, W] in [-1, 1] -> W+ [N, L, D] around w_avg ([D] or [L, D]; None: zeros)."""

    kind = "full_encoder"

    def __init__(self, config: FullEncoderConfig, w_avg: Tensor | None = None):
        super().__init__()
        self.config, self.num_rows, self.side = config, config.num_rows, config.side
        self.stage = config.num_rows - 1 if config.stage is None else config.stage
        backbone = BackboneConfig(config.widths, config.depths)
        self.input_layer, self.body = stem(backbone), stages(backbone)
        # Indices in the body of the last bottleneck of the second, third and fourth stage.
        self.taps = [end - 1 for end in accumulate(config.depths)][1:]
        rows = (COARSE_ROWS, MIDDLE_ROWS - COARSE_ROWS, config.num_rows - MIDDLE_ROWS)
        sizes = (config.side // 16, config.side // 8, config.side // 4)
        self.styles = RowHeads(list(zip(rows, sizes, strict=True)), config.head_width, config.w_dim)
        self.latlayer1 = nn.Conv2d(config.widths[3], config.head_width, 1)
        self.latlayer2 = nn.Conv2d(config.widths[2], config.head_width, 1)
        mean = torch.zeros(config.w_dim) if w_avg is None else w_avg.detach()
        self.w_avg: Tensor
        self.register_buffer("w_avg", mean.expand(config.num_rows, -1).clone())

    def pyramid(self, images_N3HW: Tensor, levels: int = 3) -> list[Tensor]:
        """Features of side / 16, / 8 and / 4 px; each has the coarser one, enlarged, added to it."""
        x, features = self.input_layer(resize(images_N3HW, self.side)), []
        for i, block in enumerate(self.body):
            x = block(x)
            if i in self.taps:
                features.append(x)
        fine, middle, coarse = features
        pyramid = [coarse]
        for lateral, feature in [(self.latlayer1, middle), (self.latlayer2, fine)][: levels - 1]:
            above = F.interpolate(pyramid[-1], size=feature.shape[-2:], mode="bilinear", align_corners=True)
            pyramid.append(lateral(feature) + above)
        return pyramid

    def heads(self, images_N3HW: Tensor) -> Tensor:
        """Outputs of the heads of rows 0 ... stage, [N, stage + 1, D]."""
        active = self.stage + 1
        levels = 1 + (active > COARSE_ROWS) + (active > MIDDLE_ROWS)
        return self.styles(self.pyramid(images_N3HW, levels), active)

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
        """The config stored in the weight file to rebuild the network, with the current training stage."""
        last = self.stage == self.num_rows - 1
        return asdict(replace(self.config, stage=None if last else self.stage))


def from_public(
    state: Mapping[str, Tensor], latent_avg: Tensor, kind: Literal["e4e", "psp"] = "e4e"
) -> FullEncoder:
    """The encoder in a public checkpoint (`encoder.` removed from its keys), frozen and in eval mode.

    latent_avg: [512] or [L, 512]. kind: e4e and pSp files have the same keys; the kind is given by their `opts`.
    Raises WeightsError, naming the first tensor that does not fit, for any other network.
    """
    rows = {int(match[1]) for key in state if (match := re.match(r"styles\.(\d{1,4})\.", key))}
    if not rows:
        raise WeightsError(
            "These tensors are not an e4e or pSp encoder: there are no heads (styles.0 ...) among them; "
            "check which network the file holds."
        )
    if not MIDDLE_ROWS < len(rows) <= MAX_ROWS or rows != set(range(len(rows))):
        raise WeightsError(
            f"These tensors are not an e4e or pSp encoder: their heads have the numbers {sorted(rows)[:20]}, "
            "expected 0 to 17 for 1024 px, or 0 to 13 for 256 px; check which network the file holds."
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
