"""IR-SE: the face-recognition network whose body is the backbone of e4e and pSp (Deng et al. 2019, Hu et al. 2018).

Shapes: N images, C channels, H x W pixels. Module names are those of the public files (IR-SE50: blocks 3/4/14/3),
so that their tensors load strictly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan2.images import resize
from stylegan2.weights import WeightsError, fill, first_difference, read_weights

IDENTITY_SIDE = 112  # input size of the recognition network in px


@dataclass
class BackboneConfig:
    """Sizes of an IR-SE backbone; the defaults are IR-SE50."""

    # Channels after the first convolution and after each of the four stages.
    widths: tuple[int, ...] = (64, 64, 128, 256, 512)
    # Bottlenecks in each stage; every stage halves the feature map.
    depths: tuple[int, ...] = (3, 4, 14, 3)

    def __post_init__(self) -> None:
        self.widths, self.depths = tuple(self.widths), tuple(self.depths)
        if len(self.widths) != 5 or len(self.depths) != 4 or min(self.widths + self.depths) < 1:
            raise ValueError("a backbone has five widths and four depths, all at least 1")
        if max(self.depths) > 100:
            raise ValueError(f"a stage has up to 100 bottlenecks, got {max(self.depths)}")


class SqueezeExcite(nn.Module):
    """x * sigmoid(W2 relu(W1 mean(x))), without biases (the compact e4e has one with biases)."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        inner = max(channels // reduction, 1)
        self.fc1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.fc2 = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Bottleneck(nn.Module):
    """norm -> 3x3 -> PReLU -> 3x3 (stride) -> norm -> SE, plus the shortcut: every stride-th pixel, or a 1x1 and norm."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)
            if inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcite(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


def stem(config: BackboneConfig) -> nn.Sequential:
    """Image -> features of the same size (`input_layer` of the public files)."""
    width = config.widths[0]
    return nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width))


def stages(config: BackboneConfig) -> nn.Sequential:
    """The bottlenecks of all stages in one sequence (`body` of the public files)."""
    blocks = []
    for before, after, depth in zip(config.widths, config.widths[1:], config.depths, strict=False):
        blocks += [Bottleneck(before if i == 0 else after, after, 2 if i == 0 else 1) for i in range(depth)]
    return nn.Sequential(*blocks)


class IdentityNet(nn.Module):
    """The whole recognition network: images [N, 3, H, W] in [-1, 1] -> unit vectors [N, 512].

    `embed` takes a face crop as used for recognition (averaged to 112 px); `forward` takes an FFHQ-aligned one, of
    which it crops [35:223, 32:220] at 256 px (Richardson et al. 2021). Both are differentiable.
    """

    kind = "ir_se"

    def __init__(self, config: BackboneConfig | None = None, width: int = 512):
        super().__init__()
        self.backbone_config, self.width = config or BackboneConfig(), width
        channels = self.backbone_config.widths[-1]
        self.input_layer, self.body = stem(self.backbone_config), stages(self.backbone_config)
        cells = (IDENTITY_SIDE // 16) ** 2
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Dropout(0.6),
            nn.Flatten(),
            nn.Linear(channels * cells, width),
            nn.BatchNorm1d(width),
        )

    @property
    def config(self) -> dict[str, Any]:
        """The config stored in the weight file to rebuild the network."""
        return asdict(self.backbone_config) | {"width": self.width}

    def embed(self, faces_N3HW: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(faces_N3HW, IDENTITY_SIDE)
        return F.normalize(self.output_layer(self.body(self.input_layer(x))))

    def forward(self, images_N3HW: Tensor) -> Tensor:
        return self.embed(resize(images_N3HW, 256)[:, :, 35:223, 32:220])


def identity_from_public(state: Mapping[str, Tensor]) -> IdentityNet:
    """The network of model_ir_se50.pth, frozen and in eval mode. Raises WeightsError unless every tensor fits."""
    with torch.device("meta"):
        net = IdentityNet()
    net.to_empty(device="cpu")
    fill_public(net, state, "an IR-SE50 recognition network")
    return net.eval().requires_grad_(False)


def load_identity(path: str | Path, device: torch.device | str = "cpu") -> IdentityNet:
    """The recognition network in a weight file, frozen and in eval mode; WeightsError for any other file."""
    weights = read_weights(path)
    if weights.kind != IdentityNet.kind:
        raise WeightsError(f"{path} holds a {weights.kind!r} network, not a recognition network ('ir_se').")
    sizes = {key: value for key, value in weights.config.items() if key != "width"}
    net = fill(lambda: IdentityNet(BackboneConfig(**sizes), weights.config["width"]), weights, path)
    return net.to(device).eval().requires_grad_(False)


def start_backbone(encoder: nn.Module, identity: IdentityNet, path: str | Path) -> None:
    """Copies the backbone weights of a recognition network into an encoder, as e4e and pSp are initialised.

    Raises WeightsError, naming the file `path` of the recognition network, if the two backbones differ in size.
    """
    parts = ("input_layer", "body")
    backbone = {k: v for k, v in identity.state_dict().items() if k.startswith(parts)}
    expected = {k: v.shape for k, v in encoder.state_dict().items() if k.startswith(parts)}
    if expected != {k: v.shape for k, v in backbone.items()}:
        raise WeightsError(
            f"{path} holds a backbone of other sizes than encoder_full describes: give both the same widths and depths."
        )
    encoder.load_state_dict(backbone, strict=False)


def fill_public(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Loads public tensors strictly, except that batch norm's `num_batches_tracked` may be missing.

    Raises WeightsError naming the first tensor that is missing, unknown, of another shape or not finite.
    """
    expected = module.state_dict()
    counts = {k: torch.zeros_like(v) for k, v in expected.items() if k.endswith("num_batches_tracked")}
    state = counts | dict(state)
    if (difference := first_difference(expected, state)) is not None:
        raise WeightsError(f"These tensors are not {what}: {difference}; check which network the file holds.")
    for key in sorted(state):
        if not bool(torch.isfinite(state[key]).all()):
            raise WeightsError(
                f"These tensors are damaged: {key} holds NaN or infinity; use another copy of the file."
            )
    module.load_state_dict(state)
