"""A compact e4e encoder (Tov et al. 2021, arXiv 2102.02766): image -> w plus one small delta per W+ row.

Shapes: N images, L rows, D = 512, C channels. Images are FFHQ-aligned, 256 px, [-1, 1].

The full e4e has 267 M parameters, 236 M of them in its 18 heads. This one has the same structure in a smaller size: an
IR-SE backbone (improved residual blocks with squeeze and excitation, Deng et al. 2019) on the image averaged to
128 px, a coarse-to-fine pyramid, and heads whose first layers are shared by the rows of one level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.networks.e4e import COARSE_ROWS, MIDDLE_ROWS, FullEncoder, FullEncoderConfig
from stylegan2.images import resize
from stylegan2.weights import WeightsError, fill, read_weights, save_weights

EMBEDDED = Path(__file__).parents[1] / "assets" / "encoder_256.safetensors"
SIDE = 128  # px at which the backbone reads the image


@dataclass
class CompactE4EConfig:
    """Sizes of a compact encoder; the defaults have 12 M parameters and encode about 50 frames a second on a core."""

    num_rows: int = 14  # L: rows of W+ of a 256 px generator
    w_dim: int = 512  # D
    widths: tuple[int, ...] = (32, 64, 128, 256, 320)  # channels at 64, 32, 16, 8 and 4 px
    depths: tuple[int, ...] = (1, 2, 3, 3, 1)  # residual blocks at the same sizes
    hidden: int = 512  # width of the hidden layer between the 4 px features and w
    rank: int = 128  # channels to which a feature map is reduced before the heads of the deltas

    def __post_init__(self) -> None:
        if len(self.widths) != 5 or len(self.depths) != 5:
            raise ValueError("widths and depths need five entries each, for 64, 32, 16, 8 and 4 px")
        if min(self.w_dim, self.hidden, self.rank) < 1 or self.num_rows <= MIDDLE_ROWS:
            raise ValueError(
                f"w_dim, hidden and rank are at least 1, num_rows at least {MIDDLE_ROWS + 1}, got {self}"
            )
        if min(self.widths) < 8 or any(width % 8 for width in self.widths):
            raise ValueError(f"widths must be divisible by 8, got {self.widths}")
        if max(self.depths) > 100:
            raise ValueError(f"a level has up to 100 blocks, got {max(self.depths)}")


class BiasedSqueezeExcite(nn.Module):
    """x * sigmoid(W2 relu(W1 mean(x) + b1) + b2)."""

    def __init__(self, channels: int, reduction: int = 8):
        super().__init__()
        self.down = nn.Conv2d(channels, channels // reduction, 1)
        self.up = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class ImprovedResidual(nn.Module):
    """norm -> 3x3 -> PReLU -> 3x3 (stride) -> norm -> SE, plus the shortcut.

    Group norm instead of batch norm: frames of one video are not a random batch, and tuning uses single images.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.residual = nn.Sequential(
            nn.GroupNorm(8, in_channels),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.PReLU(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, stride, 1, bias=False),
            nn.GroupNorm(8, out_channels),
            BiasedSqueezeExcite(out_channels),
        )
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels and stride == 1
            else nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(in_channels, out_channels, 1, bias=False))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.residual(x)


class RowHead(nn.Module):
    """The heads of one level: feature map pooled to 4x4 -> [N, rows, D], through layers that the rows share."""

    def __init__(self, channels: int, rows: int, rank: int, w_dim: int):
        super().__init__()
        self.rows = rows
        self.reduce = nn.Conv2d(channels, rank, 1)
        self.shared = nn.Linear(rank * 16, 2 * rank)
        self.out = nn.Linear(2 * rank, rows * w_dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(F.leaky_relu(self.reduce(x), 0.01), 4).flatten(1)
        return self.out(F.leaky_relu(self.shared(x), 0.01)).unflatten(1, (self.rows, -1))


class CompactE4E(nn.Module):
    """images [N, 3, 256, 256] in [-1, 1] -> W+ [N, L, D] = w_avg + w + delta_row."""

    kind, side = "compact_e4e", SIDE

    def __init__(self, config: CompactE4EConfig, w_avg: Tensor | None = None):
        super().__init__()
        self.config, self.num_rows = config, config.num_rows
        self.w_avg: Tensor
        self.register_buffer("w_avg", torch.zeros(config.w_dim) if w_avg is None else w_avg.clone())
        widths, levels = config.widths, []
        self.stem = nn.Conv2d(3, widths[0], 3, 2, 1)
        for i, (width, depth) in enumerate(zip(widths, config.depths, strict=True)):
            first = ImprovedResidual(widths[max(i - 1, 0)], width, 1 if i == 0 else 2)
            levels.append(
                nn.Sequential(first, *(ImprovedResidual(width, width, 1) for _ in range(depth - 1)))
            )
        self.levels = nn.ModuleList(levels)
        self.base = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[4] * 16, config.hidden),
            nn.PReLU(config.hidden),
            nn.Linear(config.hidden, config.w_dim),
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, widths[4], 1) for width in widths[2:4])
        rows = (COARSE_ROWS, MIDDLE_ROWS - COARSE_ROWS, config.num_rows - MIDDLE_ROWS)
        self.heads = nn.ModuleList(RowHead(widths[4], n, config.rank, config.w_dim) for n in rows)

    def split(self, images_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> (w - w_avg [N, D], deltas [N, L, D])."""
        x = self.stem(resize(images_N3HW, SIDE))
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        pyramid = [features[4]]  # 4 px, then 8 and 16 px, each with the coarser level added
        for lateral, feature in zip(reversed(self.lateral), reversed(features[2:4]), strict=True):
            above = F.interpolate(pyramid[-1], size=feature.shape[-2:], mode="bilinear", align_corners=False)
            pyramid.append(lateral(feature) + above)
        deltas = torch.cat([head(feature) for head, feature in zip(self.heads, pyramid, strict=True)], dim=1)
        return self.base(features[4]), deltas

    def forward(self, images_N3HW: Tensor) -> Tensor:
        base, deltas = self.split(images_N3HW)
        return self.w_avg + base[:, None] + deltas

    def file_config(self) -> dict[str, Any]:
        """The config stored in the weight file to rebuild the network."""
        return asdict(self.config)


Encoder = CompactE4E | FullEncoder


def save_encoder(encoder: Encoder, path: str | Path, notes: dict[str, Any], half: bool = True) -> None:
    """Writes the file that `load_encoder` reads; half: floats are stored as float16."""
    save_weights(encoder, path, encoder.kind, encoder.file_config(), notes, half)


def load_encoder(path: str | Path = "embedded", device: torch.device | str = "cpu") -> Encoder:
    """The encoder in a weight file, of any kind, frozen and in eval mode; WeightsError for any other file."""
    path = EMBEDDED if str(path) == "embedded" else Path(path)
    weights = read_weights(path)
    kinds: dict[str, tuple[Callable[..., Encoder], Callable[..., Any]]] = {
        CompactE4E.kind: (CompactE4E, CompactE4EConfig),
        FullEncoder.kind: (FullEncoder, FullEncoderConfig),
    }
    if weights.kind not in kinds:
        raise WeightsError(f"{path} holds a {weights.kind!r} network, not an encoder ({', '.join(kinds)}).")
    network, sizes = kinds[weights.kind]
    encoder = fill(lambda: network(sizes(**weights.config)), weights, path)
    return encoder.to(device).eval().requires_grad_(False)
