"""Perceptual distances with frozen trunks: ST-LPIPS (weights in its wheel) or LPIPS (trunk weights needed).

ST-LPIPS: Ghildyal and Liu, ECCV 2022; LPIPS: Zhang et al., CVPR 2018. Their numbers are not comparable, so
every result names the one that was used. Training uses alex, judging uses vgg: the judge is not the teacher.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from stylegan2.weights import WeightsError

Net = Literal["alex", "vgg"]
TRUNKS = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}


class Perceptual(nn.Module):
    """forward(x, y): images [N, 3, H, W] in [-1, 1] -> distances [N]; gradients reach the images only."""

    def __init__(self, name: str, network: nn.Module):
        super().__init__()
        self.name = name
        self.network = network.eval().requires_grad_(False)

    def forward(self, x_N3HW: Tensor, y_N3HW: Tensor) -> Tensor:
        return self.network(x_N3HW, y_N3HW).flatten()


def trunk_path(net: str) -> Path:
    """Where LPIPS's trunk weights lie once torchvision has fetched them: torch's hub cache."""
    return Path(torch.hub.get_dir()) / "checkpoints" / TRUNKS[net]


def load_perceptual(net: Net = "alex", family: Literal["st-lpips", "lpips"] = "st-lpips") -> Perceptual:
    """The named distance; WeightsError when its weights are not on this machine (nothing is downloaded)."""
    quiet = contextlib.redirect_stdout(io.StringIO())  # both packages print while they load
    with quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if family == "st-lpips":
            from stlpips_pytorch import stlpips

            return Perceptual(
                f"st-lpips-{net}", stlpips.LPIPS(net=net, variant="shift_tolerant", verbose=False)
            )
        trunk = trunk_path(net)
        if not trunk.is_file():
            raise WeightsError(
                f"lpips needs {trunk}: download it from https://download.pytorch.org/models/{TRUNKS[net]}, "
                "or use metrics.perceptual=st-lpips, whose weights are installed."
            )
        import lpips

        return Perceptual(f"lpips-{net}", lpips.LPIPS(net=net, verbose=False))
