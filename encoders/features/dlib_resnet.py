"""dlib's face recognition network (King 2017) in PyTorch: the same embeddings as encoders.features.identity.DlibIdentity, with
gradients that reach the image.

The network is a ResNet with 29 convolutions. Each is followed by an affine layer (batch normalisation with fixed statistics),
which is folded into it here. Embeddings are compared by Euclidean distance.
Shapes: N images, chips of 150 x 150 px.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.features.dlib_file import DlibLayer, DlibNetwork, read_dlib_network
from encoders.features.face_chip import SIDE, chip
from encoders.features.identity import MODEL
from encoders.footage.faces import dlib_model_path
from stylegan2.weights import WeightsError, demand_weights

WIDTH = 128  # of an embedding
# Channels of the residual blocks; the first block of each further tuple halves the resolution.
STAGES = ((32,) * 3, (64,) * 4, (128,) * 3, (256,) * 3, (256,))


class Residual(nn.Module):
    """relu(x + conv(relu(conv(x)))); with `halve` the first convolution has stride 2 and x is averaged over 2 x 2 px."""

    def __init__(self, before: int, after: int, halve: bool):
        super().__init__()
        self.halve = halve
        self.first = nn.Conv2d(before, after, 3, 2, 0) if halve else nn.Conv2d(before, after, 3, 1, 1)
        self.second = nn.Conv2d(after, after, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        return F.relu(_sum(F.avg_pool2d(x, 2) if self.halve else x, y))


class DlibResNet(nn.Module):
    """Face chips [N, 3, 150, 150], RGB in [-1, 1] -> embeddings [N, 128]."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(3))  # of RGB in 0-255
        self.stem = nn.Conv2d(3, STAGES[0][0], 7, 2)
        channels = [STAGES[0][0], *(width for stage in STAGES for width in stage)]
        halved = [
            stage > 0 and place == 0 for stage, widths in enumerate(STAGES) for place in range(len(widths))
        ]
        self.blocks = nn.Sequential(
            *(Residual(*pair, halve) for pair, halve in zip(pairwise(channels), halved, strict=True))
        )
        self.out = nn.Linear(channels[-1], WIDTH, bias=False)

    def forward(self, chips_N3SS: Tensor) -> Tensor:
        if chips_N3SS.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"expected chips (N, 3, {SIDE}, {SIDE}), got {tuple(chips_N3SS.shape)}")
        x = ((chips_N3SS + 1) * 127.5 - self.mean[:, None, None]) / 256
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2)
        return self.out(self.blocks(x).mean((2, 3)))


class DifferentiableIdentity(nn.Module):
    """Images [N, 3, H, W], RGB in [-1, 1], and the 68 landmarks [N, 68, 2] of their faces in px -> embeddings [N, 128].

    The landmarks place the crop and get no gradient. Differences from dlib, which rounds landmarks and pixels, are small
    beside its distances between people.
    """

    def __init__(self, net: DlibResNet):
        super().__init__()
        self.net = net

    def forward(self, images_N3HW: Tensor, landmarks: Tensor) -> Tensor:
        return self.net(chip(images_N3HW, landmarks))


def load_dlib_resnet(device: torch.device | str = "cpu", path: str | Path | None = None) -> DlibResNet:
    """The network, frozen, from the file of the installed package or from `path`.

    Raises FaceError if the package is not installed, WeightsError for a file that is missing, damaged or of another kind.
    """
    path = dlib_model_path(MODEL) if path is None else Path(path)
    demand_weights(path)
    with torch.device("meta"):
        net = DlibResNet()
    try:
        state = _state(read_dlib_network(path.read_bytes()), net)
    except ValueError as error:
        raise WeightsError(
            f"{path} is not dlib's face recognition network or is damaged ({error}): install or copy it again."
        ) from error
    net.load_state_dict(state, assign=True)
    net = net.to(device).to(memory_format=torch.channels_last)  # about a tenth faster on a CPU
    return net.eval().requires_grad_(False)


def _sum(a: Tensor, b: Tensor) -> Tensor:
    """a + b, where channels, rows and columns that only one of the two has count as 0 in the other."""
    channels, rows, columns = (max(sizes) for sizes in zip(a.shape[1:], b.shape[1:], strict=True))

    def filled(x: Tensor) -> Tensor:
        missing = (0, columns - x.shape[3], 0, rows - x.shape[2], 0, channels - x.shape[1])
        return F.pad(x, missing) if any(missing) else x

    return filled(a) + filled(b)


def _state(file: DlibNetwork, net: DlibResNet) -> dict[str, Tensor]:
    """The network's state dict from the layers of a file; ValueError if they are not this network's."""
    if [(layer.name, layer.settings) for layer in file.layers] != _layers(net) or file.side != SIDE:
        raise ValueError(f"its {len(file.layers)} layers are not those of this network")
    if not all(0 <= value <= 255 for value in file.mean):
        raise ValueError(f"it subtracts {file.mean}, which is no colour")
    state = {"mean": torch.tensor(file.mean)}
    convolutions = (layer for layer in file.layers if layer.name == "con_4")
    affines = (layer for layer in file.layers if layer.name == "affine_")
    for name, conv in net.named_modules():
        if isinstance(conv, nn.Conv2d):
            sizes = [conv.weight.numel(), conv.out_channels]
            weight, bias = _numbers(next(convolutions), sum(sizes)).split(sizes)
            gamma, beta = _numbers(next(affines), 2 * conv.out_channels).chunk(2)
            state[f"{name}.weight"] = weight.view(conv.weight.shape) * gamma.view(-1, 1, 1, 1)
            state[f"{name}.bias"] = gamma * bias + beta
    state["out.weight"] = _numbers(file.layers[-1], net.out.weight.numel()).view(-1, WIDTH).T.contiguous()
    return state


def _numbers(layer: DlibLayer, count: int) -> Tensor:
    if len(layer.parameters) != count or not np.isfinite(layer.parameters).all():
        raise ValueError(f"a layer {layer.name} does not hold {count} finite numbers")
    return torch.from_numpy(layer.parameters.astype(np.float32))


def _layers(net: DlibResNet) -> list[tuple[str, tuple[int, ...]]]:
    """Names and settings of the layers that dlib's file has for this network, in order of evaluation."""
    layers = [*_convolution(net.stem), ("relu_", ()), ("max_pool_2", (3, 3, 2, 2, 0, 0))]
    for block in net.blocks:
        assert isinstance(block, Residual)
        layers += [*_convolution(block.first), ("relu_", ()), *_convolution(block.second)]
        layers += [("avg_pool_2", (2, 2, 2, 2, 0, 0))] if block.halve else []
        layers += [("add_prev_", ()), ("relu_", ())]
    return [*layers, ("avg_pool_2", (0, 0, 1, 1, 0, 0)), ("fc_2", (WIDTH, net.out.in_features, 1))]


def _convolution(conv: nn.Conv2d) -> list[tuple[str, tuple[int, ...]]]:
    settings = (conv.out_channels, *conv.kernel_size, *conv.stride, *map(int, conv.padding))
    return [("con_4", settings), ("affine_", ())]
