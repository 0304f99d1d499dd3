"""Small networks for the tests of encoders, their training and inversion."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from encoders.networks.e4e_compact import CompactE4EConfig
from stylegan2.networks.generator import StyleGAN2

SMALL_COMPACT = CompactE4EConfig(
    num_rows=8, w_dim=16, widths=(8, 8, 8, 16, 16), depths=(1, 1, 1, 1, 1), rank=8
)


def squared_error(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each image, [N], in place of a perceptual distance."""
    return (x - y).square().mean((1, 2, 3))


def small_generator(resolution: int) -> StyleGAN2:
    """A StyleGAN2 with 8 channels and W of 16 numbers: 8 rows of W+ at 32 px, 10 at 64 px."""
    torch.manual_seed(0)
    channels = {2**k: 8 for k in range(2, resolution.bit_length())}
    net = StyleGAN2(resolution, w_dim=16, z_dim=16, channels=channels, mapping_layers=2)
    return net.eval().requires_grad_(False)


def write_pictures(folder: Path, count: int) -> Path:
    """0.png, 1.png ...: random blurred images of 70 px in a new folder."""
    folder.mkdir()
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 255, (6, 6, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((70, 70)).save(folder / f"{i}.png")
    return folder
